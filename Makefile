# Thin over cargo: each target installs what is missing, then builds and runs.

NODE_MODULES := tests/interop/node/node_modules

.PHONY: help run test lint

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

run: ## run the service; flags by ARGS="..."
	@scripts/install postgresql
	cargo build --locked --release
	@exec target/release/voicecall serve $(ARGS)

test: ## run the tests
	@scripts/install postgresql interop
	cargo test --locked

lint: ## check formatting, clippy, rustdoc and the proto files
	@scripts/install interop
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	$(NODE_MODULES)/.bin/buf lint
