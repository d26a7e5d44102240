#include "helper_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct open_tree tree_open(void)
{
    struct open_tree t = {.epochs = epochs_create()};
    assert_non_null(t.epochs);
    t.tree = cidr_tree_create(t.epochs);
    assert_non_null(t.tree);
    return t;
}

void tree_close(struct open_tree *t)
{
    cidr_tree_destroy(t->tree);
    epochs_destroy(t->epochs);
}

bool tree_has(const void *tree, const struct addr *a)
{
    return cidr_tree_has(tree, a);
}
