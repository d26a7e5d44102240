/* helper_tree.h - a prefix tree for one test. */
#ifndef HELPER_TREE_H
#define HELPER_TREE_H

#include "policy/cidr_tree.h"

struct open_tree {
    struct epochs *epochs;
    struct cidr_tree *tree;
};

struct open_tree tree_open(void);
void tree_close(struct open_tree *t);

/* cidr_tree_has() for twin_compare(). */
bool tree_has(const void *tree, const struct addr *a);

#endif
