package totp

import "time"

// Guesses limits wrong codes: the first Free in a row cost nothing, and after each further one there is a wait that doubles, up to
// MaxWait. A right code forgets them. So who has a client's key and no secret has at most 24 guesses a day in the long run, each of which
// is right with a probability of at most (2 Skew + 1) / 10^6. The zero value is nobody who has guessed.
//
//	wrong in a row   0 to Free-1   Free       Free+1      ...   Free+7 and more
//	wait             none          FirstWait  2 FirstWait ...   MaxWait
type Guesses struct {
	Wrong int       `json:"wrong,omitempty"` // in a row
	Until time.Time `json:"until,omitzero"`  // no guess before
}

// Bounds of guessing.
const (
	Free      = 5
	FirstWait = 30 * time.Second
	MaxWait   = time.Hour
)

// Wait is how long no guess is taken; 0 is now. A clock that was set back makes nobody wait for longer than MaxWait.
func (g *Guesses) Wait(now time.Time) time.Duration {
	return min(max(g.Until.Sub(now), 0), MaxWait)
}

// Failed notes a wrong guess.
func (g *Guesses) Failed(now time.Time) {
	g.Wrong = min(g.Wrong+1, 1<<20)
	if g.Wrong < Free {
		return
	}
	wait := FirstWait << min(g.Wrong-Free, 16)
	g.Until = now.Add(min(wait, MaxWait))
}
