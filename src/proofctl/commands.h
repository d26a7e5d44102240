/* commands.h - what the rows of the command table run. Each prints its result, or one clear sentence about
 * why there is none, and returns the exit code.
 *
 * Thread: [any]; one session, one thread.
 */
#ifndef PROOFCTL_COMMANDS_H
#define PROOFCTL_COMMANDS_H

#include "proofctl/session.h"

enum ctl_exit cmd_partner_add(struct session *s);
enum ctl_exit cmd_partner_list(struct session *s);
enum ctl_exit cmd_partner_show(struct session *s);
enum ctl_exit cmd_partner_set(struct session *s);
enum ctl_exit cmd_partner_disable(struct session *s);
enum ctl_exit cmd_partner_enable(struct session *s);
enum ctl_exit cmd_partner_remove(struct session *s);
enum ctl_exit cmd_ip_add(struct session *s);
enum ctl_exit cmd_ip_remove(struct session *s);
enum ctl_exit cmd_ip_list(struct session *s);
enum ctl_exit cmd_token_rotate(struct session *s);
enum ctl_exit cmd_token_revoke(struct session *s);
enum ctl_exit cmd_token_finish(struct session *s);
enum ctl_exit cmd_token_inspect(struct session *s);
enum ctl_exit cmd_import(struct session *s);
enum ctl_exit cmd_export(struct session *s);
enum ctl_exit cmd_verify(struct session *s);
enum ctl_exit cmd_audit(struct session *s);
enum ctl_exit cmd_init(struct session *s);
enum ctl_exit cmd_acl(struct session *s);
enum ctl_exit cmd_gateways(struct session *s);
enum ctl_exit cmd_status(struct session *s);
enum ctl_exit cmd_reload(struct session *s);
enum ctl_exit cmd_drain(struct session *s);
enum ctl_exit cmd_undrain(struct session *s);
enum ctl_exit cmd_tunnels_list(struct session *s);
enum ctl_exit cmd_tunnels_close(struct session *s);
enum ctl_exit cmd_log_level(struct session *s);
enum ctl_exit cmd_explain(struct session *s);
enum ctl_exit cmd_confirm_deletions(struct session *s);
enum ctl_exit cmd_completion_bash(struct session *s);
enum ctl_exit cmd_reference(struct session *s);

#endif
