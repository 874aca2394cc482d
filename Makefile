# The modules of go.work.
MODULES := ./... ./storage/... ./cmd/... ./cqrsx/... ./examples/... ./benchmarks/... ./internal/tests/... ./monitor/... ./internal/tests/dashboards/... ./metrics/... ./tracing/... ./engines/... ./engines/nats/... ./engines/kafka/... ./engines/redis/... ./engines/amqp/... ./engines/postgres/... ./engines/outboxes/... ./engines/tests/... ./examples/graduate/...
# Those to run under the race detector, the longest first: not what only compares peers, whose dependencies take minutes to compile for it.
RACED := ./internal/tests/... ./cmd/... ./... ./storage/... ./cqrsx/... ./examples/... ./benchmarks/outbox/... ./benchmarks/internal/durable ./benchmarks/internal/measure ./benchmarks/internal/recovery ./monitor/... ./metrics/... ./tracing/... ./engines/...
GOBIN := $(CURDIR)/bin
# Of what CI runs: lint has vetted it all, and what go test vets again are all dependencies too, once more for the race detector.
CHECKED := go test -vet=off
# The last golangci-lint that Go 1.25 compiles. The go command builds it once, and then has it in its cache.
GOLANGCI := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2
# One for each checkout: it holds paths, which the exclusions go by.
LINT_CACHE = $(shell go env GOCACHE)/golangci-lint$(subst /,-,$(CURDIR))

.DEFAULT_GOAL := help
.PHONY: help up test test_v test_short test_race test_faults test_stress test_reconnect guard sim apisim crash crash_outbox chaos hostile resources churn soak soak_suite mutants omissions build wait engines engines_measure engines_kill bench bench_quick bench_self fmt formatted vet lint fuzz generate demo release test_release test_clients browser hosts storm

help: ## this list
	@awk -F ':.*## ' '/^[a-z_]+:.*## / {printf "%-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## nothing to start: there is no broker

test: lint test_race test_reconnect test_faults browser guard ## everything that CI runs; docs/reliability.md has its budget

test_v: ## all tests under the race detector, each with its name
	go test -race -v $(MODULES)

test_short: ## what answers fast: no race detector, small sizes
	go test -short $(MODULES)

# Many packages wait for most of their time: with two for each processor, what is still to compile does not wait with them.
test_race: ## everything, with the race detector and the sizes that it allows
	$(CHECKED) -race -p $$((2 * $$(getconf _NPROCESSORS_ONLN))) -timeout 20m $(RACED)

test_reconnect: ## the universal suite over a network that is cut; see the test for why not under -race
	$(CHECKED) -timeout 10m -run "TestPubSub.*Reconnect" ./internal/tests

test_faults: ## what is too long for the race detector: simulations, chaos, hostile peers, files and resources that fail
	$(CHECKED) -p 1 -timeout 25m ./internal/acked/receiver ./storage/outbox ./storage/dedupe ./internal/tests/hostile ./internal/tests/resources ./internal/tests/chaos ./internal/tests/apisim ./engines/tests

browser: ## the page of monitor/ in a real Chromium, with axe-core; installs both where it may, else the tests are skipped and say so
	@command -v chromium chromium-browser google-chrome >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || echo "no Chromium, and it cannot be installed here"
	@test -d internal/tests/browser/node_modules/axe-core || npm ci --silent --prefix internal/tests/browser || echo "no axe-core, and npm cannot install it here"
	$(CHECKED) -count=1 -v -timeout 10m ./internal/tests/browser

guard: ## no regression by half, by ratios to GoChannel and to one write a message
	$(CHECKED) -p 1 ./benchmarks/compare ./benchmarks/internal/drive
	$(CHECKED) -count=1 -v ./benchmarks/guard

SEEDS ?= 50000
sim: ## SEEDS worlds of publishers, receivers and faults; SIM_SEED repeats one
	SEEDS=$(SEEDS) go test -count=1 -v -timeout 24h -run 'TestSimulation$$' ./internal/acked/receiver
	SEEDS=$(SEEDS) go test -count=1 -v -timeout 24h -run 'TestMoveSimulation$$' ./internal/acked/sender

apisim: ## SEEDS random programs over the public API, and SEEDS with moves: docs/apisim.md; APISIM_SEED repeats one, APISIM_SHRINK=1 makes it small
	SEEDS=$(SEEDS) go test -count=1 -v -timeout 24h -run 'TestAPISimulation$$' ./internal/tests/apisim
	SEEDS=$(SEEDS) go test -count=1 -v -timeout 24h -run 'TestAPISimulation_Moves$$' ./internal/tests/apisim

FAULTS ?= 5000
MESSAGES ?= 5000000
chaos: ## real sockets, and a network that does everything networks do; CHAOS_SEED repeats a schedule
	CHAOS_FAULTS=$(FAULTS) CHAOS_MESSAGES=$(MESSAGES) go test -count=1 -v -timeout 60m -run TestChaos ./internal/tests/chaos

soak: ## SOAK=30m of traffic and faults, with a line a minute
	SOAK=$(or $(SOAK),30m) go test -count=1 -v -timeout 24h -run TestSoak ./internal/tests/chaos

HOSTILE ?= 100000
hostile: ## HOSTILE connections of hostile peers beside an honest one
	HOSTILE=$(HOSTILE) go test -count=1 -v -timeout 60m ./internal/tests/hostile

resources: ## no descriptors, no disk, slow consumers, 10,000 connections
	go test -count=1 -v -timeout 10m ./internal/tests/resources

CHURN ?= 1000000
churn: ## CHURN connects and closes
	CHURN=$(CHURN) go test -count=1 -v -timeout 60m -run TestChurn ./internal/tests/resources

HOSTS ?= 5
hosts: ## routes over replicas that are restarted, killed, stopped or slow, each measure HOSTS times: docs/routing.md
	HOSTS=$(HOSTS) go test -count=1 -v -timeout 120m ./internal/tests/hosts

STORM ?= 200
storm: ## replicas of a route that are killed, restarted and stopped, and their publisher killed, STORM times for each policy
	MOVES_STORM=$(STORM) go test -count=1 -v -timeout 60m -run TestMoves_Storm ./internal/tests/moves

mutants: ## mistakes put into the code one at a time, each of which must turn a test red
	MUTANTS=1 go test -count=1 -v -timeout 6h -run TestMutants ./internal/tests/mutants

OMISSIONS ?= 200
omissions: ## statements left out one at a time, chosen at random: OMISSIONS of them, by OMIT_SEED, in OMIT_FILES; what no test notices is listed
	OMISSIONS=$(OMISSIONS) go test -count=1 -v -timeout 12h -run TestOmissions ./internal/tests/mutants

test_stress: ## the universal suite, many times side by side: STRESS_TEST_COUNT
	go test -tags stress -race -timeout 30m -run TestPubSub_Stress ./internal/tests

KILLS ?= 200
crash: ## processes killed at KILLS random moments, and an account that must be exact; SEED repeats a schedule
	KILLS=$(KILLS) go test -run TestCrash -count=1 -timeout 30m ./internal/tests/crash -v

CRASHES ?= 20000
crash_outbox: ## recoveries of an outbox whose disk lost what was not synced
	go test -count=1 -timeout 30m -run TestCrashes_AtRandom ./storage/outbox -outbox.crashes=$(CRASHES)

soak_suite: ## the universal suite ten times in a row, under the race detector
	go test -race -count=10 -timeout 30m -run 'TestPubSub' ./internal/tests

build: ## all modules
	go build $(MODULES)

wait: ## nothing to wait for: there is no broker

engines: ## the suite of engines against every server that is here: Debian's Redis, RabbitMQ and PostgreSQL too; KAFKA_BROKERS for a real Kafka
	ENGINES_SERVERS=1 go test -count=1 -v -timeout 20m ./engines/tests

engines_measure: ## E1 and E2 of docs/engines.md: the bridge beside each engine's own client
	ENGINES_SERVERS=1 ENGINES_MEASURE=$(or $(MESSAGES_EACH),200000) go test -count=1 -v -timeout 60m -run TestMeasure ./engines/tests

KILLS_EACH ?= 10
engines_kill: ## E3: JetStream's nodes and the bridge killed KILLS_EACH times, ENGINES_KILL messages (1000000)
	ENGINES_KILL=$(or $(ENGINES_KILL),1000000) KILLS_EACH=$(KILLS_EACH) go test -count=1 -v -timeout 120m -run TestKillEverything ./engines/tests

drill: ## processes broken on purpose, seen through the page in Chromium, Debian's Prometheus with our alerts, traces, and check: 10 minutes; docs/operating.md
	DRILL=1 go test -count=1 -v -timeout 25m ./internal/tests/dashboards/drill

bench_outside: ## bench and latency beside nats bench, each against a count from outside
	BENCH_OUTSIDE=1 go test -count=1 -v -timeout 15m -run TestOutside ./engines/tests

bench: ## beside what users would pick instead: writes docs/benchmarks.md, .json and .svg, about 10 minutes
	go run ./benchmarks/compare --out docs

bench_quick: ## the same in two minutes, printed only
	go run ./benchmarks/compare --quick

bench_self: ## this transport alone
	go test -run xxx -bench . ./framing ./pool ./internal/tests

VERSION ?= v0.0.0-dry
OUT ?= $(CURDIR)/release
release: ## what a release of VERSION would be, in OUT: tags, module proxy, checksums, command; see CONTRIBUTING.md
	scripts/release $(VERSION) $(OUT)

test_release: ## a release, installed and used from its module proxy
	RELEASE=1 go test -count=1 -v ./internal/tests/release

test_clients: ## the clients in other languages beside this library and each other; SPEED=200000 measures them; mypy and build are installed where that is allowed
	@command -v mypy >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends mypy python3-build python3-wheel python3-setuptools >/dev/null; } || echo "no mypy and build, and they cannot be installed here"
	SPEED=$(SPEED) go test -count=1 -v -timeout 20m ./internal/tests/clients

demo: ## the main job, on the Go sources
	go run ./cmd/buffstreams demo

fmt: ## gofmt
	gofmt -w $$(git ls-files '*.go' ':!*.pb.go')

vet: formatted ## go vet, and that everything is formatted; lint has all of it
	go vet $(MODULES)

formatted: ## that everything is formatted
	@test -z "$$(gofmt -l $$(git ls-files '*.go' ':!*.pb.go'))" || { echo "run make fmt"; exit 1; }

lint: formatted ## golangci-lint with .golangci.yml, whose govet is all of go vet and more, and which package may import which
	GOLANGCI_LINT_CACHE=$(LINT_CACHE) $(GOLANGCI) run --allow-parallel-runners $(MODULES)
	go test -run TestImports ./internal/tests

T ?= 1m
fuzz: ## every fuzz target for T
	@for p in $$(go list ./... ./storage/...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			go test -run xxx -fuzz "^$$f\$$" -fuzztime $(T) -fuzzminimizetime 20x $$p || exit 1; \
		done; \
	done

generate: ## the Go code of proto/ (needs protoc 3.21 or later)
	GOBIN=$(GOBIN) go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	PATH=$(GOBIN):$$PATH protoc --proto_path=proto --go_out=internal/wire --go_opt=paths=source_relative proto/*.proto
