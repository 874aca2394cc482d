# The modules of go.work.
MODULES := ./... ./cmd/... ./benchmarks/...
GOBIN := $(CURDIR)/bin

.PHONY: up test test_v test_short test_race test_stress test_reconnect crash crash_outbox soak_suite build wait bench fmt vet lint fuzz generate demo

up: ## nothing to start: there is no broker

test: vet test_race test_reconnect ## everything that CI runs

test_v:
	go test -race -v $(MODULES)

test_short:
	go test -short $(MODULES)

test_race:
	go test -race -timeout 10m $(MODULES)

test_reconnect: ## the universal suite over a network that is cut; see the test for why not under -race
	go test -timeout 5m -run "TestPubSub.*Reconnect" ./internal/tests

test_stress: ## the universal suite, many times side by side: STRESS_TEST_COUNT
	go test -tags stress -race -timeout 30m -run TestPubSubStress ./internal/tests

KILLS ?= 200
crash: ## processes killed at KILLS random moments, and an account that must be exact; SEED repeats a schedule
	KILLS=$(KILLS) go test -run TestCrash -count=1 -timeout 30m ./internal/tests/crash -v

CRASHES ?= 20000
crash_outbox: ## recoveries of an outbox whose disk lost what was not synced
	go test -count=1 -timeout 30m -run TestRandomCrashes ./outbox -outbox.crashes=$(CRASHES)

soak_suite: ## the universal suite ten times in a row, under the race detector
	go test -race -count=10 -timeout 30m -run 'TestPubSub' ./internal/tests

build:
	go build $(MODULES)

wait: ## nothing to wait for: there is no broker

bench: ## this transport alone; benchmarks/ compares
	go test -run xxx -bench . ./framing ./pool ./internal/tests

demo: ## the main job, on the Go sources
	go run ./cmd/buffstreams demo

fmt:
	gofmt -w $$(git ls-files '*.go' ':!*.pb.go')

vet:
	go vet $(MODULES)
	@test -z "$$(gofmt -l $$(git ls-files '*.go' ':!*.pb.go'))" || { echo "run make fmt"; exit 1; }

lint: vet ## and the direction of imports, and staticcheck
	go test -run TestImportsPointDown ./internal/tests
	go run honnef.co/go/tools/cmd/staticcheck@v0.7.0 $(MODULES)

T ?= 1m
fuzz: ## every fuzz target for T
	@for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			go test -run xxx -fuzz "^$$f\$$" -fuzztime $(T) -fuzzminimizetime 20x $$p || exit 1; \
		done; \
	done

generate: ## the Go code of proto/ (needs protoc 3.21 or later)
	GOBIN=$(GOBIN) go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	PATH=$(GOBIN):$$PATH protoc --proto_path=proto --go_out=proto --go_opt=paths=source_relative proto/*.proto
