from pgweir.net cimport calls
from pgweir.net.streams cimport Member, Streams

cdef unsigned int _IN
cdef int ACCEPTS


cdef class Door(Member):
    cdef public object _accepted, _sock
    cdef public int _most
    cdef public Py_ssize_t _round
