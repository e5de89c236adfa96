cimport cython

from pgweir.net cimport calls
from pgweir.net.channel cimport Workbench
from pgweir.net.libuv cimport Place

cdef unsigned int _IN


cdef class Streams:
    cdef public object loop
    cdef public object _epoll, _view
    cdef public bytearray _buffer, _found
    cdef public Workbench _bench
    cdef public list _members, _ending
    cdef public bint _in_turn, _is_told
    cdef public int _number, _spare, _loops, _handshakes
    cdef public Py_ssize_t _round, _shook
    cdef public Place _place

    @cython.locals(count=cython.int, place=cython.int, number=cython.int, patience=cython.int, member=Member)
    cpdef turn(self)
    cpdef Py_ssize_t round(self)
    cdef Workbench bench(self)
    cdef bint may_shake(self) except -1
    cdef enter(self, object member, Py_ssize_t number)
    cdef end(self, object member)
    @cython.locals(ending=list, member=Member)
    cpdef _settle(self)


cdef class Member:
    cdef public Streams _streams
    cdef public int _number
    cdef public int _watched

    cpdef happened(self, unsigned int events)
    cpdef abort(self)
    cpdef finish(self)
    cdef _watch(self, unsigned int events)
    cdef int _release(self) except -1
