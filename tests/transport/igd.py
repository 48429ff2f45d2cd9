"""A router that speaks UPnP, as far as miniupnpc asks: on loopback, with notes of what it was asked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"
_DESCRIPTION = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>{_KIND}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<SCPDURL>/scpd</SCPDURL><controlURL>/control</controlURL><eventSubURL>/events</eventSubURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"""
_ANSWERS = {
    "GetStatusInfo": "<NewConnectionStatus>Connected</NewConnectionStatus><NewUptime>1</NewUptime>",
    "GetExternalIPAddress": "<NewExternalIPAddress>{public}</NewExternalIPAddress>",
}


class Igd:
    """The router. public: its address on the other side. mapped: inside port by outside port, with the lease in
    seconds. taken: outside ports that are somebody else's. permanent: it knows no leases."""

    def __init__(self, public: str = "11.22.33.44") -> None:
        self.public = public
        self.mapped: dict[int, tuple[int, int]] = {}
        self.taken: set[int] = set()
        self.permanent = False
        self.location = ""

    def answer(self, action: str, body: str) -> tuple[int, str]:
        """(status, what stands in the answer's body) of a call."""

        def number(name: str) -> int:
            found = re.search(rf"<{name}>(\d+)</{name}>", body)
            return int(found[1]) if found else 0

        outside = number("NewExternalPort")
        if action == "AddPortMapping":
            if outside in self.taken:
                return _error(718, "ConflictInMappingEntry")
            if self.permanent and number("NewLeaseDuration"):
                return _error(725, "OnlyPermanentLeasesSupported")
            self.mapped[outside] = (number("NewInternalPort"), number("NewLeaseDuration"))
        elif action == "DeletePortMapping":
            if self.mapped.pop(outside, None) is None:
                return _error(714, "NoSuchEntryInArray")
        elif action not in _ANSWERS:
            return _error(401, "Invalid Action")
        inside = _ANSWERS.get(action, "").format(public=self.public)
        return 200, f'<u:{action}Response xmlns:u="{_KIND}">{inside}</u:{action}Response>'


def _error(code: int, text: str) -> tuple[int, str]:
    return 500, (
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
        f"<errorDescription>{text}</errorDescription></UPnPError></detail></s:Fault>"
    )


@contextmanager
def router(public: str = "11.22.33.44") -> Generator[Igd, None, None]:
    """A router on 127.0.0.1 while the context is open."""
    igd = Igd(public)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, _DESCRIPTION)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            action = self.headers["SOAPAction"].strip('"').rpartition("#")[2]
            status, inside = igd.answer(action, body)
            self._send(
                status,
                '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
                's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
                f"{inside}</s:Body></s:Envelope>",
            )

        def _send(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    igd.location = f"http://127.0.0.1:{server.server_address[1]}/description.xml"
    try:
        yield igd
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
