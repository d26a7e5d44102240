/* cpus.h - how many processors this process may use. Thread: [control]. */
#ifndef BASE_CPUS_H
#define BASE_CPUS_H

/* The smaller of the affinity mask and the cgroup quota (v2 cpu.max, v1 cfs_quota; rounded up), at least 1.
 */
unsigned cpus_available(void);

/* The cgroup quota in processors, rounded up; 0 when there is none. Reads <root>/proc/self/cgroup and, from
 * that cgroup up to the top, the limits under <root>/sys/fs/cgroup; the smallest counts. A container often
 * sees only its own cgroup mounted at the top: levels that do not exist are skipped.
 * `root` is "" in a running process; tests pass a folder. */
unsigned cpus_cgroup_quota(const char *root);

#endif
