# Two commands for a newcomer: `make demo` (needs nothing but Go) and `make test` (installs what it needs).
GO      ?= go
BIN     := bin
LDFLAGS := -s -w
export GOFLAGS ?= -buildvcs=false

.PHONY: all build build-agents package demo test test-long interop bench peers lint fmt generate clients docs deadcode fuzz clean

all: build

build: ## the three programs, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/hallmark ./cmd/hallmark
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/hallmark-agent ./cmd/hallmark-agent
	scripts/build-station.sh $(BIN)/hallmark-station

build-agents: ## the agent for the boards it runs on, in bin/: what is not for this machine's number of bits breaks here first
	for a in arm arm64 riscv64 386 amd64; do \
	  CGO_ENABLED=0 GOARCH=$$a GOARM=6 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/hallmark-agent-$$a ./cmd/hallmark-agent || exit 1; done

package: ## .deb, .rpm, OCI image, SBOMs and provenance, the same bytes from the same commit, in dist/
	scripts/package.sh

demo: build ## whole lives of devices; DEMO_FLAGS="--once --json"
	$(BIN)/hallmark demo $(DEMO_FLAGS)

test: ## every test, and at the end which did not run and why
	scripts/test.sh

test-long: ## the exhaustive and seeded runs too
	HALLMARK_LONG=1 scripts/test.sh -count=1 -timeout=6h ./...

interop: ## foreign clients and tools against ours
	scripts/interop.sh

bench: build ## name, ours, reference, ratio, goal; writes bench/RESULTS.md
	$(GO) run ./internal/bench

peers: ## the same against other systems
	$(GO) run ./internal/bench -peers

lint: ## any finding fails
	scripts/lint.sh

fmt:
	$$(scripts/tool.sh gofumpt) -w $$(git ls-files '*.go' | grep -Ev '_templ\.go$$|\.gen\.go$$')

generate: ## the console's pages, from their sources
	cd internal/console && $$(../../scripts/tool.sh templ) generate

clients: ## clients of the API from its description: Go in client/, Python and TypeScript in dist/clients/
	scripts/clients.sh

docs: ## docs/reference, from the code
	$(GO) run ./internal/reference docs

deadcode: ## functions no program reaches
	$$(scripts/tool.sh deadcode) ./cmd/... ./internal/reference

fuzz: ## every fuzz target, FUZZTIME (10s) each
	scripts/fuzz.sh

clean:
	rm -rf $(BIN) dist .cache
