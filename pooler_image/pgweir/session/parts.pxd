from pgweir.pool.stats cimport Timings
from pgweir.session.cancels cimport Cancels
from pgweir.session.credentials cimport ServerCredentials
from pgweir.session.essentials cimport Essentials
from pgweir.session.lookup cimport Lookups
from pgweir.session.overflow cimport Overflow
from pgweir.session.roster cimport Logins, Roster
from pgweir.session.turns cimport Turns


cdef class Parts(Essentials):
    cdef public object edge, config, settings, tracker, opening, open_console
    cdef public dict databases, pools, startups, closed_counts, auth_failures
    cdef public ServerCredentials credentials
    cdef public Roster roster
    cdef public Logins logins
    cdef public Turns turns
    cdef public Cancels cancels
    cdef public Lookups lookups
    cdef public Overflow overflow
    cdef public Timings client_logins
    cdef public bint accepting
