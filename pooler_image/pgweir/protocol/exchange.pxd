cimport cython

from pgweir.protocol cimport framing
from pgweir.protocol.prepared cimport Owed, ServerStatements


cdef class Exchange:
    cdef public list owed
    cdef public ServerStatements statements
    cdef public object changed_parameters, kept_names, naming
    cdef public Py_ssize_t special, ticked, need, transactions, errors
    cdef public int status
    cdef public bint doubtful, unsynced, copy_in, saw_error, fatal, unsolicited_error, noted, deallocated_all
    cdef public bint replay, clearing, wary
    cdef public bytes tail, spoken, last_words

    cpdef expect(self, int kind)
    cpdef bytes expect_special(self, Owed owed)
    @cython.locals(size=Py_ssize_t, pos=Py_ssize_t, end=Py_ssize_t, start=Py_ssize_t, length=Py_ssize_t, kind=int, route=int, routes=bytes, answered=bytes, owed=list, plain=int, count=Py_ssize_t)
    cpdef bytes scan(self, bytes data)
    @cython.locals(owed=list, count=Py_ssize_t, plain=int)
    cdef _ready(self, int status)
    cdef _failed(self)
    cdef _take_off(self)
    cdef bint _owes_copy_done(self)
    @cython.locals(owed=list)
    cdef bytes _take_fakes(self)
cdef int COMMAND_COMPLETE, COPY_BOTH_RESPONSE, COPY_DONE, COPY_IN_RESPONSE, ERROR_RESPONSE, FUNCTION_CALL
cdef int PARAMETER_STATUS, PARSE, QUERY, SYNC
cdef int _DATA, _ANSWER, _READY, _ACT, _PASS
cdef Py_ssize_t FEW
