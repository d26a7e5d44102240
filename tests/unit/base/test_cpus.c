/* Processors by cgroup quota, read from copies of the kernel's files. */
#include "base/cpus.h"

#include "support/folder.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void no_files_mean_no_quota(void **state)
{
    assert_int_equal(cpus_cgroup_quota(*state), 0);
}

static void v2_quota_is_rounded_up(void **state)
{
    folder_write_text(*state, "proc/self/cgroup", "0::/app\n");
    folder_write_text(*state, "sys/fs/cgroup/app/cpu.max", "150000 100000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 2);
    folder_write_text(*state, "sys/fs/cgroup/app/cpu.max", "200000 100000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 2);
    folder_write_text(*state, "sys/fs/cgroup/app/cpu.max", "200001 100000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 3);
    folder_write_text(*state, "sys/fs/cgroup/app/cpu.max", "1000 100000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 1);
}

static void v2_max_is_no_quota(void **state)
{
    folder_write_text(*state, "proc/self/cgroup", "0::/app\n");
    folder_write_text(*state, "sys/fs/cgroup/app/cpu.max", "max 100000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 0);
}

static void smallest_quota_on_the_way_up_counts(void **state)
{
    folder_write_text(*state, "proc/self/cgroup", "0::/a/b/c\n");
    folder_write_text(*state, "sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n");
    folder_write_text(*state, "sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    folder_write_text(*state, "sys/fs/cgroup/a/cpu.max", "300000 100000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 3);
}

static void container_that_sees_its_cgroup_at_the_top(void **state)
{
    folder_write_text(*state, "proc/self/cgroup", "0::/system.slice/docker-1234.scope\n");
    folder_write_text(*state, "sys/fs/cgroup/cpu.max", "50000 25000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 2);
}

static void v1_quota(void **state)
{
    folder_write_text(*state, "proc/self/cgroup",
                      "11:memory:/docker/12\n4:cpu,cpuacct:/docker/12\n1:name=systemd:/docker/12\n");
    folder_write_text(*state, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    folder_write_text(*state, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(cpus_cgroup_quota(*state), 0);
    folder_write_text(*state, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 3);
    folder_write_text(*state, "sys/fs/cgroup/cpu/docker/12/cpu.cfs_period_us", "100000\n");
    folder_write_text(*state, "sys/fs/cgroup/cpu/docker/12/cpu.cfs_quota_us", "100000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 1);
}

static void other_controllers_are_not_asked(void **state)
{
    folder_write_text(*state, "proc/self/cgroup", "5:cpuset:/app\n6:cpuacct:/app\n");
    folder_write_text(*state, "sys/fs/cgroup/cpu/app/cpu.cfs_period_us", "100000\n");
    folder_write_text(*state, "sys/fs/cgroup/cpu/app/cpu.cfs_quota_us", "100000\n");
    assert_int_equal(cpus_cgroup_quota(*state), 0);
}

static void odd_files_are_no_quota(void **state)
{
    static const char *const odd[] = {
        "", "\n", "max", "x y\n", "0 100000\n", "100000 0\n", "-5 100000\n", "99999999999999999999999 1\n"};
    folder_write_text(*state, "proc/self/cgroup", "garbage\n0::\n::::\n0::/app");
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        folder_write_text(*state, "sys/fs/cgroup/app/cpu.max", odd[i]);
        assert_int_equal(cpus_cgroup_quota(*state), 0);
    }
    folder_write_text(*state, "sys/fs/cgroup/app/cpu.max", "400000"); /* the period has a default */
    assert_int_equal(cpus_cgroup_quota(*state), 4);
}

static void this_machine_has_at_least_one(void **state)
{
    (void)state;
    cpu_set_t mask;
    assert_int_equal(sched_getaffinity(0, sizeof mask, &mask), 0);
    assert_in_range(cpus_available(), 1, (unsigned)CPU_COUNT(&mask));
}

#define CPUS_TEST(f) cmocka_unit_test_setup_teardown(f, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CPUS_TEST(no_files_mean_no_quota),
        CPUS_TEST(v2_quota_is_rounded_up),
        CPUS_TEST(v2_max_is_no_quota),
        CPUS_TEST(smallest_quota_on_the_way_up_counts),
        CPUS_TEST(container_that_sees_its_cgroup_at_the_top),
        CPUS_TEST(v1_quota),
        CPUS_TEST(other_controllers_are_not_asked),
        CPUS_TEST(odd_files_are_no_quota),
        cmocka_unit_test(this_machine_has_at_least_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
