cimport cython

from pgweir.net cimport calls, delivery
from pgweir.net.channel cimport Channel
from pgweir.net.streams cimport Member, Streams

cdef unsigned int _IN, _OUT
cdef Py_ssize_t HIGH_WATER, LOW_WATER


cdef class Stream(Member):
    cdef public object _protocol, _error, _queue
    cdef public Channel _channel
    cdef public Py_ssize_t _sent, _kept
    cdef public bint _is_reading, _is_stalled, _is_closing, _is_over

    cpdef begin(self, protocol)
    @cython.locals(data=bytes, channel=Channel)
    cdef bint _read(self) except -1
    @cython.locals(size=Py_ssize_t, streams=Streams)
    cdef bint _read_sealed(self, Channel channel) except -1
    @cython.locals(channel=Channel)
    cpdef _go_on(self)
    @cython.locals(data=bytes)
    cdef _open(self, Channel channel, object sealed)
    cdef _reply(self, Channel channel)
    cdef _ended(self)
    cpdef pause_reading(self)
    @cython.locals(channel=Channel)
    cpdef resume_reading(self)
    @cython.locals(whole=bytes, channel=Channel)
    cpdef write(self, object data)
    @cython.locals(size=Py_ssize_t, sent=Py_ssize_t)
    cdef _send(self, bytes whole)
    @cython.locals(sent=Py_ssize_t)
    cdef _flush(self)
    @cython.locals(channel=Channel)
    cpdef close(self)
    @cython.locals(whole=bytes)
    cdef _part(self, Channel channel)
    @cython.locals(channel=Channel)
    cpdef finish(self)
    cdef _failed(self, object error)
    cdef _end(self, object error)
