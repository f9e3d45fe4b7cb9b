import subprocess
import sys


def test_neither_the_daemon_nor_the_command_line_loads_ray_or_torch() -> None:
    """Not even with the Ray executor at hand: only the bridge process does."""
    code = (
        "import sys, heygemd.cli, heygemd.service.serve, heygemd.cluster.executor, heygemd.cluster.watch\n"
        "print([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert run.stdout.strip() == "[]", run.stderr
