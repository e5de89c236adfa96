from pgweir.protocol cimport framing


cdef class Statement:
    cdef object __weakref__
    cdef public bytes name, body


cdef class StatementRegistry:
    cdef public object _by_body, _numbers

    cpdef Statement intern(self, bytes body)


cdef class ServerStatements:
    cdef public dict _order, _stale

    cpdef bint touch(self, Statement statement) except -1
    cpdef bint is_stale(self, Statement statement) except -1
    cpdef list add(self, Statement statement, Py_ssize_t limit)
    cpdef add_stale(self, Statement statement)
    cpdef mistrust(self)
    cpdef discard(self, Statement statement)
    cpdef clear(self)


cdef class Owed:
    cdef public int kind
    cdef public object action, names
    cdef public Statement statement
    cdef public bytes name

    cpdef bytes fake_reply(self)
    cpdef undo(self, ServerStatements statements)
    cpdef forget_name(self)


cpdef (Py_ssize_t, Py_ssize_t) bind_names_end(bytes data, Py_ssize_t start, Py_ssize_t end) except *
