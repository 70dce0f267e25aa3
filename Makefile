# Two commands for a newcomer: `make demo` (needs nothing but Go) and `make test` (installs what it needs).
GO      ?= go
BIN     := bin
LDFLAGS := -s -w
export GOFLAGS ?= -buildvcs=false

.PHONY: all build demo test test-long interop bench peers lint fmt fuzz clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/hallmark ./cmd/hallmark
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/hallmark-agent ./cmd/hallmark-agent
	scripts/build-station.sh $(BIN)/hallmark-station

demo: build
	$(BIN)/hallmark demo $(DEMO_FLAGS)

test:
	scripts/test.sh

test-long:
	HALLMARK_LONG=1 scripts/test.sh

interop:
	scripts/interop.sh

bench:
	$(GO) run ./internal/bench

peers:
	$(GO) run ./internal/bench -peers

lint:
	scripts/lint.sh

fmt:
	gofmt -w $$(git ls-files '*.go' | grep -v _templ.go)

fuzz:
	scripts/fuzz.sh

clean:
	rm -rf $(BIN) .cache
