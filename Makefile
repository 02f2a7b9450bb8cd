# Two commands do everything on a fresh machine with Rust and make:
#   make quickstart    run an experiment on real nodes
#   make test          pass all tests
# They install what is missing on Debian and Ubuntu, or say what to install elsewhere.

CARGO ?= cargo
NODES ?= 64

# What is built once needs no notes for the next time.
ifdef CI
export CARGO_INCREMENTAL = 0
endif

# The tests of nodes over sockets, which pass on smol too.
SOCKET_TESTS = $(addprefix --test ,ring_over_sockets shaped_links network_key dictionary_over_sockets without_tokio)

# The swarm and the planted bugs share one build; nodes of the swarm have no bug.
SWARM = --profile swarm --locked -p p2ps --features planted

.PHONY: help quickstart build test setup-test lint deny unit bench bench-sim bench-key explore planted swarm clean \
        testbed testbed-down testbed-check testbed-compare slurm-check trials node-static

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make quickstart [NODES=64]  run experiments/quickstart.yaml on real local nodes (about 30 s, after the build)
quickstart: build
	target/release/orchestrator run experiments/quickstart.yaml --set nodes=$(NODES)

## make build                  build the release binaries: target/release/orchestrator and p2ps-node
build:
	@deploy/install.sh build
	$(CARGO) build --release --locked

## make test                   format check, lints, dependency rules, all tests, and the testbed's own check
test: setup-test lint deny unit testbed-check

setup-test:
	@deploy/install.sh test

## make lint                   rustfmt's check, clippy with warnings denied, documentation without warnings
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --all-features --locked

## make deny                   licences, bans and sources of the dependencies; advisories where a database is reachable
deny:
	target/tools/bin/cargo-deny --locked check licenses bans sources
	@if git ls-remote -q https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; \
	then target/tools/bin/cargo-deny --locked check advisories; \
	else echo "advisories not checked: the advisory database is not reachable from here"; fi

## make unit                   the tests alone
unit:
	$(CARGO) build --workspace --bins --locked
	$(CARGO) test --workspace --locked
	$(CARGO) test --locked -p p2ps --features smol $(SOCKET_TESTS)
	$(MAKE) planted swarm

## make bench                  footprint of an idle node, look-ups per second, start of many nodes; prints figures
bench:
	@deploy/install.sh build
	$(CARGO) bench --locked -p p2ps --bench network

## make bench-key              what a network's key costs, side by side with a network without one; prints figures
bench-key:
	@deploy/install.sh build
	$(CARGO) bench --locked -p p2ps --bench network -- --network-key

## make bench-sim [NODES_MAX=1000000]  speed and memory of the simulator at 10^4 to 10^6 nodes; prints figures (a few minutes)
bench-sim:
	@deploy/install.sh build
	$(CARGO) bench --locked -p p2ps --bench simulation -- $(NODES_MAX)

## make explore [ONLY="lossy crash"] [STATES=250000]  every order of events in small networks, on the real protocol (1 min)
explore:
	@deploy/install.sh build
	$(CARGO) bench --locked -p p2ps --bench explore -- $(ONLY) $(STATES)

## make planted [COUNT=1] [BY=swarm] [ONLY=Busy]  bugs are planted in the protocol: each must be caught within 50 seeds (1 min; COUNT: by how many)
planted:
	@deploy/install.sh build
	$(if $(COUNT),COUNT=1) BY=$(BY) ONLY=$(ONLY) $(CARGO) test $(SWARM) --test planted_bugs -- --nocapture

## make swarm [SEEDS=280|100..200] [SEED=17 [MESSAGES=1]]  random networks and faults in virtual time; SEED replays one
swarm:
	@deploy/install.sh build
	$(CARGO) bench $(SWARM) --bench swarm -- $(if $(SEED),--seed $(SEED) $(if $(MESSAGES),--messages),$(or $(SEEDS),280))

## make node-static            the static node binary that is sent to hosts: target/node-static/p2ps-node-x86_64
node-static:
	@deploy/install.sh build
	deploy/node-static.sh

## make testbed [HOSTS=4 BAD="1:refuse 3:slow=200ms"]  a testbed in a box: hosts with a real sshd (root only; deploy/testbed/)
testbed:
	@deploy/install.sh testbed
	@HOSTS="$(or $(HOSTS),4)" BAD="$(BAD)" deploy/testbed/testbed.sh up

## make testbed-down           remove it
testbed-down:
	@deploy/testbed/testbed.sh down

## make testbed-check          check the testbed itself (about 30 s; skipped, and said so, where there can be none)
testbed-check:
	@deploy/install.sh testbed
	deploy/testbed/check.sh

## make testbed-compare [HOSTS=20 ROUNDS=5]  a command and a file to all hosts: ours, pssh, clush, ansible and ssh side by side (some 5 min)
testbed-compare: build
	@deploy/install.sh testbed
	@deploy/install.sh compare
	@HOSTS="$(or $(HOSTS),20)" ROUNDS="$(or $(ROUNDS),5)" deploy/testbed/compare.sh

## make slurm-check            run an experiment on a real Slurm from Debian's packages, which are not installed (about 1 min; root only)
slurm-check: build
	@deploy/slurm-check.sh

## make trials [TRIALS=50 SEED=1]  kill an orchestrator, agent, sshd or link at a random moment, so often: nothing may be left (root only)
trials:
	@deploy/install.sh test
	TRIALS=$(or $(TRIALS),50) SEED=$(or $(SEED),1) $(CARGO) test --locked -p p2ps-orchestrator --test trials -- --nocapture

## make clean                  remove what was built
clean:
	@test ! -e target/testbed/journal || deploy/testbed/testbed.sh down
	$(CARGO) clean
