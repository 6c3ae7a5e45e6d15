package tunnel

import "time"

// A machine that was suspended finds its sessions as it left them, by a clock that stood still, while the far ends have given them up.
// Options.Sleep tells of it; then the engine's clock goes on by what it has missed, and peers are called.

// streamOutlives is how long a suspension may be for a stream to be gone on with: the far end ends one that takes nothing for as long.
const streamOutlives = 30 * time.Second

// watchSleep follows the machine's suspensions until the tunnel is closed.
func (t *Tunnel) watchSleep() {
	if t.options.Sleep != nil {
		t.workers.Go(func() { t.options.Sleep(t.closing, t.woke) })
	}
}

// woke notes that the machine was suspended for so long, and is no more.
func (t *Tunnel) woke(slept time.Duration) {
	if slept <= 0 {
		return
	}
	t.clock.advance(slept)
	t.logf("%s: the machine was suspended for %v", t.name(), slept.Round(time.Second))
	t.configuring.Lock()
	defer t.configuring.Unlock()
	if t.closed {
		return
	}
	now, peers := t.clock.now(), t.snapshotPeers()
	if t.isUp {
		for _, p := range peers {
			if slept >= streamOutlives && p.streams.own.Load() != 0 {
				p.streams.stale.Store(true)
			}
			p.call(now, len(peers))
		}
	}
	for _, p := range peers { // what is due meanwhile, or is dated anew
		t.attention.add(p)
	}
	select { // the loop's timer was set by the clock as it was
	case t.woken <- struct{}{}:
	default:
	}
}
