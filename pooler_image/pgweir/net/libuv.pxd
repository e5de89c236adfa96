from pgweir.net cimport calls


cdef class Place:
    cdef public int number
    cdef public size_t _loop, _idle
    cdef public size_t _timeout, _update, _nothing, _start, _stop
    cdef public object _call, _handles

    cdef enter(self)
    cdef int patience(self) except -2
    cdef leave(self)
