# Thin over cargo: each target installs what is missing, then builds and runs.

NODE_MODULES := tests/interop/node/node_modules

.PHONY: help run test bench bench-large lint

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

run: ## run the service; flags by ARGS="..."
	@scripts/install postgresql
	cargo build --locked --release
	@exec target/release/voicecall serve $(ARGS)

test: ## run the tests
	@scripts/install postgresql interop
	cargo test --locked

bench: ## measure side by side with floors and peers; options by ARGS="..."
	@scripts/install postgresql bench
	cargo bench --locked --bench side_by_side -- --rows 1000000 $(ARGS)

bench-large: ## what depends on the size of the table, with 10,000,000 calls
	@scripts/install postgresql bench
	cargo bench --locked --bench side_by_side -- --rows 10000000 --warm --only ListVoiceCalls,"on a database of" $(ARGS)

lint: ## check formatting, clippy, rustdoc and the proto files
	@scripts/install interop
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	$(NODE_MODULES)/.bin/buf lint
