# make demo | dev | check | test | test-fuse | bench | build | install | uninstall | clean
# Everything that is missing is installed: Debian packages by apt-get (as root or with sudo), the rest into .venv.

PYTHON ?= /usr/bin/python3
PREFIX ?= /opt/fusecrypt
DESTDIR ?=
VENV := .venv
BIN := $(VENV)/bin
ENGINE := build/engine/.built

RUN_PACKAGES := python3 python3-venv fuse3 libgcrypt20
BUILD_PACKAGES := gcc make pkg-config python3-dev libgcrypt20-dev libfuse3-dev
DEMO_PACKAGES := cryptsetup-bin e2fsprogs fuse2fs util-linux mount
TEST_PACKAGES := $(DEMO_PACKAGES) clang libclang-rt-14-dev jq xz-utils strace gdb fio qemu-utils qemu-system-x86 cpio bc busybox-static \
	nbdkit libnbd-bin lz4 dmsetup xxd systemd acl attr procps
BENCH_PACKAGES := fio qemu-utils qemu-system-common nbdkit libnbd-bin cryptsetup-bin

C_SOURCES := $(wildcard dmcrypt/engine/src/*.c)
C_HEADERS := $(wildcard dmcrypt/engine/src/*.h)
C_FLAGS := -std=gnu17 -O2 -D_GNU_SOURCE -Wall -Wextra -Wconversion -Werror -fsyntax-only

.PHONY: demo dev check test test-fuse test-sanitize bench build install uninstall clean packages-% lint-c

demo: dev packages-DEMO
	$(BIN)/python tests/demo/demo.py

dev: $(ENGINE)

$(VENV)/.installed: pyproject.toml setup.py | packages-BUILD
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade setuptools wheel
	$(BIN)/pip install --quiet --disable-pip-version-check $$($(PYTHON) .ci/requirements.py)
	mkdir -p build/ns/fusecrypt
	for part in daemon dmcrypt keystore; do ln -sfn ../../../$$part build/ns/fusecrypt/$$part; done
	echo "$(CURDIR)/build/ns" > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/fusecrypt-dev.pth
	$(BIN)/python .ci/console_scripts.py $(BIN)
	touch $@

$(ENGINE): $(VENV)/.installed $(C_SOURCES) $(C_HEADERS) $(wildcard dmcrypt/engine/src/*.py)
	$(BIN)/python dmcrypt/engine/src/build_engine.py
	touch $@

# Asks dpkg first, so that a machine that has everything needs neither root nor a network.
packages-%:
	@missing=$$(dpkg-query -W -f '$${Package} $${Status}\n' $(RUN_PACKAGES) $($*_PACKAGES) 2>&1 \
		| awk '/no packages found/ { print $$NF } /not-installed|deinstall/ { print $$1 }'); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qq -y --no-install-recommends $$missing > /dev/null; \
	fi

check: dev lint-c
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/pyright

lint-c:
	for file in $(C_SOURCES); do $(CC) $(C_FLAGS) $$file || exit 1; done

test: dev packages-TEST
	$(BIN)/python -m pytest

test-fuse: dev packages-TEST
	$(BIN)/python -m pytest tests/fuse tests/fault

test-sanitize: dev packages-TEST
	$(BIN)/python -m pytest tests/sanitize

bench: dev packages-BENCH
	$(BIN)/python benchmarks/run.py --json build/benchmark.json --svg build/benchmark.svg $(BENCH)

build: dev
	rm -rf build/lib* build/bdist* build/temp*
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

# A virtual environment of its own, with the commands linked into /usr/local/bin.
install: build
	$(PYTHON) -m venv $(DESTDIR)$(PREFIX)
	$(DESTDIR)$(PREFIX)/bin/pip install --quiet --disable-pip-version-check --force-reinstall dist/fusecrypt-*.whl
	install -d $(DESTDIR)/usr/local/bin
	for name in fusecrypt fusecryptd fusecrypt-keystored; do ln -sfn $(PREFIX)/bin/$$name $(DESTDIR)/usr/local/bin/$$name; done

uninstall:
	for name in fusecrypt fusecryptd fusecrypt-keystored; do \
		if [ "$$(readlink $(DESTDIR)/usr/local/bin/$$name)" = $(PREFIX)/bin/$$name ]; then rm $(DESTDIR)/usr/local/bin/$$name; fi; done
	test ! -e $(DESTDIR)$(PREFIX)/bin/fusecryptd || rm -r $(DESTDIR)$(PREFIX)

clean:
	rm -rf build dist dmcrypt/engine/*.so *.egg-info
