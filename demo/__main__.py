"""Open the demo: python -m demo [--model M] [--port P]."""

import argparse
import sys
from pathlib import Path

from omni.errors import ConfigError, OmniError


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until interrupted; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Chat and draw in the browser.")
    parser.add_argument("--model", help="folder or Hub id of a model; without it, the one that is shipped")
    parser.add_argument("--port", type=int, help="port to listen on; without it, the first free one from 7860 on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (0.0.0.0: the whole network)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/demo"), help="where conversations and pictures are kept"
    )
    options = parser.parse_args(arguments)
    try:
        _serve(options)
    except OmniError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(options: argparse.Namespace) -> None:
    from demo.app import build_page, launch_options
    from demo.host import Host
    from omni import Omni

    host = Host(Omni.from_pretrained(options.model), options.folder)
    page = build_page(host)
    try:
        page.launch(server_name=options.host, server_port=options.port, prevent_thread_lock=True, **launch_options())
        page.block_thread()
    except OSError as error:  # gradio's way to say that a port is taken
        port = "any port from 7860 on" if options.port is None else f"--port {options.port}"
        raise ConfigError(f"cannot listen on {port} at {options.host}; choose another --port.") from error
    finally:
        host.close()


if __name__ == "__main__":
    sys.exit(main())
