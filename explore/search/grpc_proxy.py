"""Optuna's gRPC proxy, with a client that notices when it is gone."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from optuna.storages import GrpcStorageProxy
from optuna.trial import FrozenTrial

from explore.search.remembered import Database, behind

if TYPE_CHECKING:
    import grpc

# What gRPC says of lost connections by itself is for those who build it; it is asked when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# As many calls are answered at a time, each with a connection to the database.
CALLS = 10
# So long a call waits here for the database; the client says so then, and goes on waiting.
DATABASE_SECONDS = 20.0
# Without these a worker whose proxy loses its power waits for the answer to its last call for ever.
_PING_SECONDS = 30.0
_PONG_SECONDS = 30.0
# By itself gRPC looks every two minutes whether a proxy is there again.
_LONGEST_PAUSE_SECONDS = 5.0


class Client(GrpcStorageProxy):
    """Optuna's client, whose calls end with an error within a minute when the proxy is gone or frozen.

    Raises ImportError where grpcio is not installed.
    """

    def _setup(self) -> None:
        import grpc
        from optuna.storages._grpc.auto_generated.api_pb2_grpc import StorageServiceStub
        from optuna.storages._grpc.client import GrpcClientCache

        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.keepalive_time_ms", int(1000 * _PING_SECONDS)),
            ("grpc.keepalive_timeout_ms", int(1000 * _PONG_SECONDS)),
            ("grpc.http2.ping_timeout_ms", int(1000 * _PONG_SECONDS)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.max_reconnect_backoff_ms", int(1000 * _LONGEST_PAUSE_SECONDS)),
        ]
        self._channel = grpc.insecure_channel(f"{self._host}:{self._port}", options=options)
        self._stub = StorageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._cache = GrpcClientCache(self._stub)

    def trials_from(self, study: int, number: int) -> list[FrozenTrial]:
        """The trials from this number on, as they stand now; by itself Optuna's client sorts all of them each time."""
        with self._cache.lock:
            self._cache._read_trials_from_remote_storage(study)
            return behind(self._cache.studies[study].trials, number)


def start_server(storage: Database, host: str, port: int) -> "grpc.Server":
    """Answer clients from a database; raises ImportError without grpcio, and RuntimeError where the port is taken."""
    import grpc
    from optuna.storages._grpc.auto_generated.api_pb2 import GetTrialsReply, GetTrialsRequest
    from optuna.storages._grpc.auto_generated.api_pb2_grpc import add_StorageServiceServicer_to_server
    from optuna.storages._grpc.servicer import OptunaStorageProxyService, _to_proto_trial

    class Service(OptunaStorageProxyService):
        """Optuna's, which by itself goes through all trials for the few that a client lacks."""

        def GetTrials(self, request: GetTrialsRequest, context: grpc.ServicerContext) -> GetTrialsReply:  # noqa: N802
            try:
                news = storage.news(request.study_id, request.trial_id_greater_than, request.included_trial_ids)
            except KeyError as error:
                context.abort(code=grpc.StatusCode.NOT_FOUND, details=str(error))
            return GetTrialsReply(trials=[_to_proto_trial(trial) for trial in news])

    # By itself a server takes a client for an attacker that asks more than once in five minutes whether it is there.
    # And it shares a port with any other server, so that clients find now the one, now the other.
    options = [("grpc.http2.min_ping_interval_without_data_ms", int(500 * _PING_SECONDS)), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(max_workers=CALLS), options=options)
    add_StorageServiceServicer_to_server(Service(storage), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    return server
