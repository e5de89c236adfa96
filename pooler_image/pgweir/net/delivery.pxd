from pgweir.session.client cimport ClientSession
from pgweir.session.server cimport ServerSession


cdef inline deliver(object protocol, bytes data):
    if type(protocol) is ClientSession:
        (<ClientSession> protocol).data_received(data)
    elif type(protocol) is ServerSession:
        (<ServerSession> protocol).data_received(data)
    else:
        protocol.data_received(data)
