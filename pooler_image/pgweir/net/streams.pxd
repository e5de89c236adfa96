cimport cython

from pgweir.net cimport calls, delivery
from pgweir.net.libuv cimport Place

cdef unsigned int _IN, _OUT
cdef int ACCEPTS
cdef Py_ssize_t HIGH_WATER, LOW_WATER


cdef class Streams:
    cdef public object loop
    cdef public object _epoll
    cdef public bytearray _buffer, _found
    cdef public list _members, _ending
    cdef public bint _in_turn, _is_told
    cdef public int _number, _spare, _loops
    cdef public Py_ssize_t _round
    cdef public Place _place

    @cython.locals(count=cython.int, place=cython.int, number=cython.int, patience=cython.int, member=Member)
    cpdef turn(self)
    cpdef Py_ssize_t round(self)
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


cdef class Stream(Member):
    cdef public object _protocol, _error, _queue
    cdef public Py_ssize_t _sent, _kept
    cdef public bint _is_reading, _is_stalled, _is_closing, _is_over

    cpdef begin(self, protocol)
    @cython.locals(data=bytes)
    cdef bint _read(self) except -1
    cdef _ended(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    @cython.locals(whole=bytes, size=Py_ssize_t, sent=Py_ssize_t)
    cpdef write(self, object data)
    @cython.locals(sent=Py_ssize_t)
    cdef _flush(self)
    cpdef close(self)
    cdef _failed(self, object error)
    cdef _end(self, object error)


cdef class Door(Member):
    cdef public object _accepted, _sock
    cdef public int _most
    cdef public Py_ssize_t _round
