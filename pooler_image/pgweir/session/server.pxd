cimport cython

from pgweir.pool.records cimport ServerRecord
from pgweir.protocol.exchange cimport Exchange
from pgweir.session.holder cimport Holder


cdef class ServerSession(ServerRecord):
    cdef public Exchange exchange
    cdef public Holder client
    cdef public object pool, pooler, wire, internal, values, cancel_waiters, credentials, tls
    cdef public object host, address, local_address, application_name, cancel_key
    cdef public object pid, port, local_port
    cdef public bint reading_paused, write_paused, in_hot_standby

    @cython.locals(exchange=Exchange, client=Holder)
    cpdef data_received(self, bytes data)
    @cython.locals(exchange=Exchange, now=double)
    cpdef _settled(self, Holder client)
    cpdef join(self, Holder holder)
    @cython.locals(holder=Holder)
    cpdef release(self, double now)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
