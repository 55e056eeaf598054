# The verbs of this project. `make demo` and `make test` are the two to know.

GO ?= go
FUZZTIME ?= 10s
UNIT = $(shell $(GO) list ./... | grep -v '/tests$$')

.PHONY: build demo demo-stop deps test short nightly race check fuzz e2e bench clean

build: ## bin/sheep, bin/dog, bin/sheepfs; bin/collie is dog by its old name, bin/mount.sheepfs what mount calls
	$(GO) build -o bin/ ./cmd/...
	ln -sf dog bin/collie
	ln -sf sheepfs bin/mount.sheepfs

demo: build ## three sheep on this machine, a disk on them, one sheep killed
	tests/demo/demo.sh start

demo-stop: ## end what demo started and remove its data
	tests/demo/demo.sh stop

deps: ## the Debian packages that the tests use
	tests/deps.sh

test: deps ## everything: units, and real processes with real clients
	$(GO) test -count=1 -timeout 28m ./...

short: deps ## the same with shorter storms
	$(GO) test -count=1 -short -timeout 15m ./...

nightly: deps ## the long forms of the tests that break machines
	SHEEP_TEST_STORM=3m SHEEP_TEST_ROUNDS=20 SHEEP_TEST_OBJECTS=2000 \
		$(GO) test -count=1 -v -timeout 60m -run 'TestStorm$$|TestAllKilledAtOnce|TestAnEmptyNodeIsFilled' ./tests

race: ## the unit tests with the race detector
	$(GO) test -race -timeout 15m $(UNIT)

e2e: deps ## only the tests with real processes, telling what they do
	$(GO) test -count=1 -v -timeout 28m ./tests

check: ## form, vet, staticcheck, rules of the tree, race detector
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these files'; exit 1; }
	$(GO) vet ./...
	$(GO) fix -diff ./...
	$(GO) tool staticcheck -checks all ./...
	$(GO) mod tidy -diff
	$(GO) test -race -timeout 15m $(UNIT)

fuzz: ## every fuzz target for FUZZTIME
	tests/fuzz.sh $(FUZZTIME)

bench: build ## figures beside those of the raw disk, and of C_SHEEP if it is set
	$(GO) run ./tests/bench

clean: ## remove what make build made
	rm -rf bin
