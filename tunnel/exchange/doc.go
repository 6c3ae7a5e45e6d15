// Package exchange makes the numbered control messages of the native wire reliable: each is acted on at least once, in
// the order queued, whatever the path loses, repeats or reorders, and across sessions. One message is outstanding at a
// time; it is sent again until it is acknowledged.
//
//	[Sender]    idle -> Queue -> due -> Next -> waiting -> Acked -> idle, or due with the message after it
//	                                    waiting -> time is up -> due again, with the wait doubled
//	                                    anything -> Restart -> due with the number 1; Pause -> silent until Restart
//	[Receiver]  per session: number last+1 -> act and acknowledge; last -> acknowledge; others -> nothing
//
// Numbers start at 1 with each session, and what was not acknowledged under the session before is sent again under the next.
// So a message may be acted on once per session: acting on it must be idempotent. Within a session none is acted on twice.
// A session is named by a number of the caller's choice that both ends need not share and that is never used again.
//
// Nothing here does I/O or reads a clock: now is the time since some epoch, never zero. Nothing is safe for concurrent
// use.
package exchange
