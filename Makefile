# `make` lists the targets. The tools are pinned in tools/*/go.mod, one module each, so that none of
# their dependencies mixes with Whisper's; Go builds them once and keeps them in its cache.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE   ?= whisper:$(VERSION)
# Never from the cache: integration builds the binary that it tests, which the cache does not see.
# The race detector needs a C compiler; without one the tests run all the same.
RACE    ?= $(shell command -v gcc >/dev/null 2>&1 && echo -race)
# What `make check` compares the protos with: main, or on main itself the commit before.
BASE    ?= $(shell git rev-parse -q --verify origin/main | grep -v "^$$(git rev-parse HEAD)" || git rev-parse -q --verify HEAD^)

SDK = gateway/sdk/typescript
# The Go client is a module of its own, which ./... leaves out.
CLIENT = gateway/client
# Google's types and client, which Whisper's FCM is held against, are in a module of their own for the same reason.
FCM_COUNTERPARTS = integration/counterparts/fcm

tool = $(GO) tool -modfile=$(CURDIR)/tools/$(1)/go.mod $(1)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/whisper, static: time zones are inside
	@$(MAKE) --no-print-directory binary OUT=bin/whisper

# Also how the image is built. GOOS and GOARCH may be given; empty is this machine's.
OUT ?= bin/whisper
.PHONY: binary
binary:
	CGO_ENABLED=0 GOOS=$(GOOS) GOARCH=$(GOARCH) $(GO) build -trimpath -tags timetzdata -ldflags "-s -w -X github.com/klivvr/whisper/cmd/whisper/cli.version=$(VERSION)" -o $(OUT) ./cmd/whisper

.PHONY: test
test: ## Every test; integration on the most real cluster this machine can run, and it says which
	cd $(CLIENT) && $(GO) test -count=1 -timeout 10m $(RACE) ./...
	cd $(FCM_COUNTERPARTS) && $(GO) test -count=1 -timeout 10m ./...
	$(GO) test -count=1 -timeout 45m $(RACE) ./...
	@$(SDK)/scripts/check.sh

.PHONY: bench-questions
bench-questions: ## Each question of docs/contract.md on 5 million deliveries, with its time; WHISPER_QUESTION_ROWS and WHISPER_QUESTION_DAYS for others
	$(GO) test ./projections -run '^$$' -bench Questions -benchtime 1x -timeout 60m

# What BENCHMARKS.md says of single parts. On a quiet machine; the least of the counts is the figure.
PARTS := ./domain/request ./domain/liquid ./domain/decide ./consumers/intake ./consumers/dispatch ./gateway ./consumers/push/apns
PARTS_BENCH := ParseRequest/(json$$|enc|proto)|Intake/1-|Decide$$|Dispatch$$|UserMemory|Restore$$|Render|Oracle|Bombs|Judge|Walk|State|Verify|Connect$$|SlowClients|Push$$

.PHONY: bench-parts
bench-parts: ## The benchmarks of single parts that BENCHMARKS.md has; they take some minutes
	$(GO) test $(PARTS) -p 1 -run '^$$' -bench '$(PARTS_BENCH)' -count 3 -timeout 30m

.PHONY: chaos
chaos: ## Random faults (docs/operations.md) for as long as CHAOS says (10m), and processes stopped for 15, 40 and 120 s; SEED repeats a run
	WHISPER_REQUIRE_REAL=1 WHISPER_TEST_CHAOS=$(or $(CHAOS),10m) WHISPER_TEST_SEED=$(SEED) WHISPER_TEST_STOPS=15s,40s,120s \
		$(GO) test ./integration -count=1 -v -timeout 2h -run 'TestChaos$$|TestAStoppedDispatch'

# The version before, and what runs of it beside this one, a try each.
OLD       ?= HEAD^
OLD_ROLES ?= intake dispatch push project gateway intake,push,project,gateway dispatch,gateway
.PHONY: compat
compat: ## Roles of an earlier version (OLD, a commit) beside this one's: the whole way, broadcasts, a kill of each role
	@old=$$(mktemp -d); trap 'git worktree remove --force "$$old/tree"; rm -rf "$$old"' EXIT; \
	git worktree add -q --detach "$$old/tree" $(OLD) && $(MAKE) --no-print-directory -C "$$old/tree" build && \
	for roles in $(OLD_ROLES); do \
		echo "== $$roles of $(OLD)"; \
		WHISPER_REQUIRE_REAL=1 WHISPER_TEST_OLD="$$old/tree/bin/whisper" WHISPER_TEST_OLD_ROLES=$$roles \
			$(GO) test ./integration -count=1 -timeout 60m -run 'TestTheWholeWay|TestEachRoleMayBeKilled|TestABroadcastIsSteered' || exit 1; \
	done

.PHONY: sdk
sdk: ## The TypeScript SDK into its dist/, and the page of whisper dev anew; needs Node 20 and npm
	@cd $(SDK) && scripts/install.sh && npm run build && npm run bundle

.PHONY: check
check: ## What CI runs: formatting, module, protos, lint, vulnerabilities, tests under the race detector
	@for stage in check-fmt check-tidy check-proto lint check-vuln test; do \
		began=$$(date +%s); echo "== $$stage"; \
		$(MAKE) --no-print-directory $$stage || exit 1; \
		echo "== $$stage took $$(( $$(date +%s) - began )) s"; \
	done

.PHONY: lint
lint: ## golangci-lint; its first build takes minutes
	$(call tool,golangci-lint) run ./...
	cd $(CLIENT) && $(call tool,golangci-lint) run ./...

.PHONY: fmt
fmt: ## Format with gofumpt
	@$(call tool,gofumpt) -w $(GOFILES)

.PHONY: generate
generate: ## Everything that go:generate makes, offline
	$(GO) generate ./...

.PHONY: image
image: ## The container image, built in a container
	docker build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

.PHONY: image-offline
image-offline: ## The same image from a binary built here: no other image is needed
	@$(MAKE) --no-print-directory binary GOOS=linux OUT=bin/linux/whisper
	docker build --target prebuilt -t $(IMAGE) .

.PHONY: up
up: ## Everything in containers on this machine, as deployed; needs docker compose
	VERSION=$(VERSION) docker compose up --detach --build

.PHONY: clean
clean: ## Remove what build made; state folders stay
	rm -rf bin $(SDK)/dist $(SDK)/.build

# The stages of check. Generated files say so in their first lines and are formatted by their makers.
GOFILES = $(shell git ls-files --cached --others --exclude-standard '*.go' | while read -r f; do [ -e "$$f" ] && ! head -5 "$$f" | grep -q '^// Code generated' && echo "$$f"; done)

.PHONY: check-fmt
check-fmt:
	@$(call tool,gofumpt) -d $(GOFILES) || { echo 'check-fmt: run make fmt'; exit 1; }

.PHONY: check-tidy
check-tidy:
	$(GO) mod tidy -diff
	cd $(CLIENT) && $(GO) mod tidy -diff
	cd $(FCM_COUNTERPARTS) && $(GO) mod tidy -diff

.PHONY: check-proto
check-proto:
	$(call tool,buf) lint
	@set -e; if [ -z "$(BASE)" ]; then \
		echo 'check-proto: no commit before this one here, so nothing that the protos could break'; \
	elif [ -z "$$(git ls-tree -r --name-only $(BASE) -- domain/proto)" ]; then \
		echo 'check-proto: no protos in $(BASE), so nothing that these could break'; \
	else \
		old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; \
		git archive $(BASE) buf.yaml domain/proto | tar -x -C "$$old"; \
		echo 'buf breaking --against $(BASE)'; \
		$(call tool,buf) breaking --against "$$old"; \
	fi

.PHONY: check-vuln
check-vuln:
	@if curl -fsS -m 10 -o /dev/null https://vuln.go.dev/index/db.json 2>/dev/null; then \
		$(call tool,govulncheck) ./... && cd $(CLIENT) && $(call tool,govulncheck) ./...; \
	else \
		echo 'check-vuln: the vulnerability database cannot be reached from here; not checked'; \
	fi
