cimport cython

from pgweir.pool.records cimport ClientRecord, ServerRecord
from pgweir.pool.stats cimport Stats

cdef object _SERVER_ACTIVE, _SERVER_IDLE, _CLIENT_ACTIVE, _CLIENT_WAITING


cdef class Turns:
    cdef public Stats stats
    cdef public object policy, idle, used, waiting
    cdef public set active
    cdef public Py_ssize_t server_count
    cdef public bint paused

    cpdef check_out(self, ClientRecord client, double now)
    cpdef assign(self, ServerRecord server, ClientRecord client, double now)
    cpdef put_back(self, ServerRecord server)
