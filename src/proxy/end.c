#include "proxy/end.h"

#define XX(id, text) text,
const char *const end_who_names[END_WHO_COUNT] = {END_WHO_MAP(XX)};
const char *const end_phase_names[END_PHASE_COUNT] = {END_PHASE_MAP(XX)};
const char *const limit_names[LIMIT_COUNT] = {LIMIT_MAP(XX)};
const char *const tunnel_end_names[TUNNEL_END_COUNT] = {TUNNEL_END_MAP(XX)};
#undef XX
