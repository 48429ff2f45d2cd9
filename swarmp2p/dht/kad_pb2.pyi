from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Record(_message.Message):
    __slots__ = ("key", "value", "time_received")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIME_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    time_received: str
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., time_received: _Optional[str] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("type", "key", "record", "closer_peers", "provider_peers", "cluster_level_raw", "provider_count", "splits", "coordinate")
    class MessageType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PUT_VALUE: _ClassVar[Message.MessageType]
        GET_VALUE: _ClassVar[Message.MessageType]
        ADD_PROVIDER: _ClassVar[Message.MessageType]
        GET_PROVIDERS: _ClassVar[Message.MessageType]
        FIND_NODE: _ClassVar[Message.MessageType]
        PING: _ClassVar[Message.MessageType]
    PUT_VALUE: Message.MessageType
    GET_VALUE: Message.MessageType
    ADD_PROVIDER: Message.MessageType
    GET_PROVIDERS: Message.MessageType
    FIND_NODE: Message.MessageType
    PING: Message.MessageType
    class ConnectionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NOT_CONNECTED: _ClassVar[Message.ConnectionType]
        CONNECTED: _ClassVar[Message.ConnectionType]
        CAN_CONNECT: _ClassVar[Message.ConnectionType]
        CANNOT_CONNECT: _ClassVar[Message.ConnectionType]
    NOT_CONNECTED: Message.ConnectionType
    CONNECTED: Message.ConnectionType
    CAN_CONNECT: Message.ConnectionType
    CANNOT_CONNECT: Message.ConnectionType
    class Peer(_message.Message):
        __slots__ = ("id", "addrs", "connection", "service_record")
        ID_FIELD_NUMBER: _ClassVar[int]
        ADDRS_FIELD_NUMBER: _ClassVar[int]
        CONNECTION_FIELD_NUMBER: _ClassVar[int]
        SERVICE_RECORD_FIELD_NUMBER: _ClassVar[int]
        id: bytes
        addrs: _containers.RepeatedScalarFieldContainer[bytes]
        connection: Message.ConnectionType
        service_record: bytes
        def __init__(self, id: _Optional[bytes] = ..., addrs: _Optional[_Iterable[bytes]] = ..., connection: _Optional[_Union[Message.ConnectionType, str]] = ..., service_record: _Optional[bytes] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    CLOSER_PEERS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_PEERS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_LEVEL_RAW_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    COORDINATE_FIELD_NUMBER: _ClassVar[int]
    type: Message.MessageType
    key: bytes
    record: Record
    closer_peers: _containers.RepeatedCompositeFieldContainer[Message.Peer]
    provider_peers: _containers.RepeatedCompositeFieldContainer[Message.Peer]
    cluster_level_raw: int
    provider_count: int
    splits: _containers.RepeatedCompositeFieldContainer[Split]
    coordinate: bytes
    def __init__(self, type: _Optional[_Union[Message.MessageType, str]] = ..., key: _Optional[bytes] = ..., record: _Optional[_Union[Record, _Mapping]] = ..., closer_peers: _Optional[_Iterable[_Union[Message.Peer, _Mapping]]] = ..., provider_peers: _Optional[_Iterable[_Union[Message.Peer, _Mapping]]] = ..., cluster_level_raw: _Optional[int] = ..., provider_count: _Optional[int] = ..., splits: _Optional[_Iterable[_Union[Split, _Mapping]]] = ..., coordinate: _Optional[bytes] = ...) -> None: ...

class Split(_message.Message):
    __slots__ = ("tree", "depth", "size")
    TREE_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    tree: bytes
    depth: int
    size: int
    def __init__(self, tree: _Optional[bytes] = ..., depth: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class LazyMessage(_message.Message):
    __slots__ = ("type", "key", "record", "closer_peers", "provider_peers", "provider_count", "splits", "coordinate")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    CLOSER_PEERS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_PEERS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    COORDINATE_FIELD_NUMBER: _ClassVar[int]
    type: Message.MessageType
    key: bytes
    record: Record
    closer_peers: _containers.RepeatedScalarFieldContainer[bytes]
    provider_peers: _containers.RepeatedScalarFieldContainer[bytes]
    provider_count: int
    splits: _containers.RepeatedCompositeFieldContainer[Split]
    coordinate: bytes
    def __init__(self, type: _Optional[_Union[Message.MessageType, str]] = ..., key: _Optional[bytes] = ..., record: _Optional[_Union[Record, _Mapping]] = ..., closer_peers: _Optional[_Iterable[bytes]] = ..., provider_peers: _Optional[_Iterable[bytes]] = ..., provider_count: _Optional[int] = ..., splits: _Optional[_Iterable[_Union[Split, _Mapping]]] = ..., coordinate: _Optional[bytes] = ...) -> None: ...
