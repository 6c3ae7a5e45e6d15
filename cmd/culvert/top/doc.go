// Package top is the live view of what runs: tunnels, peers, their rates, round trips and losses, and what is dropped and why.
//
// The model is pure: it is given samples ([Snapshot]), keys, the window's size and ticks as messages, and says what the screen shows. Run
// puts it on a terminal, Once writes one frame. Its states:
//
//	state    shows                            leaves it
//	list     tunnels, peers and drops         enter: detail; /: typing; ?: help; q: end
//	typing   the list, and a filter in work   enter keeps it, esc takes it away: list
//	detail   one peer                         esc, backspace, left: list
//	help     keys and what the columns are    any key: where it came from
//
// Whatever the state, a pause (space) keeps what is shown as it is and asks the daemon nothing.
//
// Names and programs of peers, reasons and errors come from elsewhere: what is not printable is quoted before it is shown ([safe]).
package top
