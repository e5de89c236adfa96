cimport cython

from pgweir.net cimport calls

cdef Py_ssize_t RECORD


cdef class Workbench:
    cdef public object incoming, outgoing, view
    cdef public bytearray buffer


cdef class Channel:
    cdef public Workbench _bench
    cdef public object _tls, agreed, error, tls
    cdef public bytes held, reply
    cdef public bint is_agreed, is_ended, is_servers
    cdef public Py_ssize_t unheard

    @cython.locals(bench=Workbench, size=Py_ssize_t, count=Py_ssize_t)
    cpdef bytes unseal(self, object sealed)
    @cython.locals(size=Py_ssize_t, count=Py_ssize_t, sealed=bytes)
    cpdef bytes seal(self, bytes data)
    cpdef bytes farewell(self)
