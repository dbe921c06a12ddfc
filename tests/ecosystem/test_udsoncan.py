"""udsoncan: a client, and a server that is simulated with its own message classes."""

from __future__ import annotations

from typing import Any, Final

import pytest

from canbroker.transport.runtime import Runtime
from tests.support.processes import Program

_TRANSPORT: Final = """
    import isotp
    from udsoncan.connections import PythonIsoTpConnection

    def address(tx, rx):
        return isotp.Address(txid=tx, rxid=rx)

    # The machine may be busy elsewhere.
    parameters = {"rx_flowcontrol_timeout": 20_000, "rx_consecutive_frame_timeout": 20_000}
    """

#: The plugin's bus and python-can's Notifier.
_PLUGIN: Final = """
    import can

    bus = can.Bus("bench", interface="canbroker", adapter="virtual")
    notifier = can.Notifier(bus, [], timeout=0.05)

    def layer(tx, rx):
        return isotp.NotifierBasedCanStack(
            bus, notifier, address=address(tx, rx), params=parameters
        )

    def close():
        notifier.stop()
        bus.shutdown()
    """

#: Our Bus, our Notifier and our BufferedReader.
_OURS: Final = """
    import canbroker as can

    bus = can.Bus("bench", "virtual")
    reader = can.BufferedReader()
    notifier = can.Notifier(bus, [reader])

    def receive(timeout):
        message = reader.get_message(timeout)
        return message and isotp.CanMessage(
            arbitration_id=message.arbitration_id, data=message.data
        )

    def send(message):
        bus.send(
            can.Message(
                arbitration_id=message.arbitration_id, data=message.data, is_extended_id=False
            )
        )

    def layer(tx, rx):
        return isotp.TransportLayer(receive, send, address(tx, rx), params=parameters)

    def close():
        notifier.stop()
        bus.shutdown()
    """

_SERVER: Final = """
    from udsoncan import Request, Response, services

    identifiers = {0xF190: b"CANBROKER-0000001", 0x0100: bytes(range(250))}

    def answer(request):
        service, data = request.service, request.data
        code = Response.Code.PositiveResponse
        if service is services.DiagnosticSessionControl:
            data = bytes([request.subfunction, 0x00, 0x32, 0x01, 0xF4])
        elif service is services.ReadDataByIdentifier and int.from_bytes(data) in identifiers:
            data += identifiers[int.from_bytes(data)]
        elif service is services.ReadDataByIdentifier:
            code = Response.Code.RequestOutOfRange
        elif service is services.WriteDataByIdentifier:
            identifiers[int.from_bytes(data[:2])] = data[2:]
            data = data[:2]
        else:
            code = Response.Code.ServiceNotSupported
        return Response(service, code, data if code == Response.Code.PositiveResponse else None)

    with PythonIsoTpConnection(layer(tx=0x7E8, rx=0x7E0)) as connection:
        connection.open()
        say("ready")
        while True:
            request = Request.from_payload(connection.wait_frame(timeout=30, exception=True))
            connection.send(answer(request).get_payload())
            if request.service is services.ECUReset:
                break
        hear()  # the answer is out
    close()
    """

_CLIENT: Final = """
    import udsoncan
    from udsoncan.client import Client

    configuration = udsoncan.configs.default_client_config | {
        "data_identifiers": {0xF190: udsoncan.AsciiCodec(17), 0x0100: "250s", 0x0200: "250s"},
        "request_timeout": 20,
        "p2_timeout": 20,
        "use_server_timing": False,
    }
    with Client(PythonIsoTpConnection(layer(tx=0x7E0, rx=0x7E8)), config=configuration) as client:
        client.change_session(3)
        values = client.read_data_by_identifier(0xF190).service_data.values
        say(values[0xF190])
        read = client.read_data_by_identifier(0x0100).service_data.values[0x0100][0]
        client.write_data_by_identifier(0x0100, (read[::-1],))
        say(client.read_data_by_identifier(0x0100).service_data.values[0x0100][0].hex())
        for request, argument in ((client.read_data_by_identifier, 0x0200), (client.ecu_reset, 1)):
            try:
                request(argument)
            except udsoncan.NegativeResponseException as refused:
                say(refused.response.code_name)
    close()
    """


@pytest.mark.parametrize(("client_bus", "server_bus"), [(_PLUGIN, _OURS), (_OURS, _PLUGIN)])
def test_client_and_server(runtime: Runtime, client_bus: Any, server_bus: Any) -> None:
    with Program(_TRANSPORT + server_bus + _SERVER) as server:
        assert server.said() == "ready"
        with Program(_TRANSPORT + client_bus + _CLIENT) as client:
            assert client.said() == "CANBROKER-0000001"
            assert client.said() == bytes(range(250))[::-1].hex()
            assert client.said() == "RequestOutOfRange"
            assert client.said() == "ServiceNotSupported"
            assert client.end() == 0
        server.tell("the client has it all")
        assert server.end() == 0
