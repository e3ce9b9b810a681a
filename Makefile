# Thin over cargo: each target installs what is missing, then builds and runs.

BUF := tests/interop/node/node_modules/.bin/buf
# The newest release that this commit descends from; empty before the first.
RELEASE = $(shell git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null)

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

lint: ## check formatting, clippy, rustdoc, and the proto files against the last release
	@scripts/install interop
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --manifest-path examples/rust/Cargo.toml --target-dir target/client -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	$(BUF) lint
	$(if $(RELEASE),$(BUF) breaking --against '.git#tag=$(RELEASE)',@echo "buf breaking: skipped, no release is tagged yet")
