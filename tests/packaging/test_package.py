"""The Debian package: built, installed, run and removed, without a trace on this machine.

It is installed by the real dpkg into an overlay of this machine's file system, in a mount namespace
of its own: what dpkg and the daemon write there goes to memory, and is gone afterwards.
"""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, as `make deb` does."""
    folder = tmp_path_factory.mktemp("deb")
    done = subprocess.run(
        [str(ROOT / "scripts" / "deb"), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def hosts() -> Iterator[lab.Lab]:
    with Network() as network:
        made = lab.build(network, backends=2)
        made.start_backends()
        yield made


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """The script that runs what stands in its first argument in such an overlay."""
    script = tmp_path / "overlay"
    script.write_text(
        textwrap.dedent("""\
            #!/bin/sh
            set -e
            mount -t tmpfs tmpfs "$1"
            cd "$1"
            mkdir upper work root
            # A layer with whiteouts: what other tests keep there meanwhile is never to be seen.
            mkdir -p hidden/var/cache hidden/var/lib
            mknod hidden/var/cache/llb c 0 0
            mknod hidden/var/lib/llb c 0 0
            mount -t overlay overlay -o lowerdir=hidden:/,upperdir=upper,workdir=work root
            mount -t proc proc root/proc
            mount -t tmpfs tmpfs root/run
            mkdir root/run/netns
            mount --rbind /run/netns root/run/netns
            mount -t sysfs sysfs root/sys
            mount -t bpf bpf root/sys/fs/bpf
            mount --rbind /dev root/dev
            cp "$2" root/tmp/llb.deb
            cp "$3" root/tmp/steps
            exec chroot root /bin/sh -e /tmp/steps
        """)
    )
    script.chmod(0o755)
    return script


STEPS = """
export DEBIAN_FRONTEND=noninteractive
cd /
dpkg -i /tmp/llb.deb
echo "== installed: $(dpkg-query -W -f '${db:Status-Abbrev}' llb)"
llb --version
grep -q public_interface /etc/llb/llb.toml
test -f /lib/systemd/system/llb.service
man_pages=$(ls /usr/share/man/man1/llb*.1.gz | wc -l)
echo "== man pages: $man_pages"
test -s /usr/share/bash-completion/completions/llb
test -s /usr/share/zsh/vendor-completions/_llb
test -s /usr/share/fish/vendor_completions.d/llb.fish
llb check
llb providers list
where='import certifi; print(certifi.where())'
trusted=$(PYTHONPATH=/usr/lib/llb/site-packages python3 -sPc "$where")
test "$(realpath "$trusted")" = /etc/ssl/certs/ca-certificates.crt
echo "== configured"
cat > /etc/llb/llb.toml <<CONFIG
@CONFIG@
CONFIG
cat > /etc/llb/backends.toml <<BACKENDS
@BACKENDS@
BACKENDS
llb check
llb run > /tmp/log 2>&1 &
daemon=$!
until grep "is ready" /tmp/log; do kill -0 $daemon || { cat /tmp/log; exit 1; }; sleep 0.2; done
until llb status --check -s web; do kill -0 $daemon || exit 1; sleep 0.2; done
echo "== serves"
@CLIENT@
llb plan
llb weight @BACKEND@ 7
kill $daemon
wait $daemon
test -d /var/cache/llb
test -d /var/lib/llb
echo "== changed: $(dpkg --verify llb)"
echo "== removing"
dpkg -r llb
test ! -e /usr/bin/llb
test ! -e /usr/lib/llb/site-packages
test -f /etc/llb/llb.toml
ls /sys/fs/bpf/llb 2>/dev/null && exit 1
ip -brief address show lo
mkdir -p /var/lib/llb/left
dpkg -P llb
test ! -e /etc/llb/llb.toml
test ! -e /var/lib/llb
test ! -e /var/cache/llb
echo "== gone"
"""


def test_it_is_installed_runs_and_is_removed(
    package: Path, overlay: Path, hosts: lab.Lab, tmp_path: Path
) -> None:
    config = lab.configuration(hosts, f"lab-{os.getpid()}-deb")
    backends = "\n".join(
        f'[[backends]]\naddress = "{each.address}"\nport = {lab.BACKEND_PORT}\n'
        for each in hosts.backends
    )
    (tmp_path / "steps").write_text(
        STEPS.replace("@CONFIG@", config)
        .replace("@BACKENDS@", backends)
        .replace("@BACKEND@", hosts.backends[0].endpoint)
        .replace(
            "@CLIENT@",
            f"nsenter --net={hosts.client.path} curl -sS -m 30 http://{lab.VIP}:{lab.PORT}/",
        )
    )
    mount = tmp_path / "mount"
    mount.mkdir()
    before = machine()
    done = hosts.lb.run(
        *(
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            overlay,
            mount,
            package,
            tmp_path / "steps",
        ),
        check=False,
        timeout=600,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    for said in ("== installed: ii", "llb 0.", "is right (0 services)", "== serves", "== gone"):
        assert said in done.stdout
    (changed,) = re.findall("== changed: (.*)", done.stdout)
    assert changed == "??5?????? c /etc/llb/llb.toml", "nothing but the configuration"
    assert machine() == before, "the machine is as it was"


def machine() -> list[bool | str]:
    """Say what of LLB there is on this machine itself."""
    places = ("/usr/bin/llb", "/usr/lib/llb", "/etc/llb", "/lib/systemd/system/llb.service")
    known = subprocess.run(["dpkg-query", "-W", "llb"], capture_output=True, text=True, check=False)
    return [*(Path(each).exists() for each in places), known.stdout]
