package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"culvert/crypto"
	"culvert/server/totp"
)

// A client of a group that has a [SignIn] is held until its user has signed in: nothing passes to or from it but control messages, and
// nothing is pushed to it but how far the sign-in has come.
//
//	held        -- a right code, or a provider's word --> signed in
//	signed in   -- its time is up, another factor is asked for, a new secret --> held
//
// What is kept of it, the secret for codes as well, is a record of the store by the client's name. It ends with the name.

// SignIn is the second factor that clients of a group need: codes by the time of day, or a provider's word.
type SignIn struct {
	Lasts    time.Duration // then it is asked for again
	Codes    bool          // TOTP (RFC 6238)
	Provider string        // issuer of who is asked otherwise (OpenID Connect)
}

// by names the factor in records: a sign-in by one does not count for another.
func (s *SignIn) by() string {
	if s.Codes {
		return "totp"
	}
	return "oidc " + s.Provider
}

// NoAuthenticator is the note of a sign-in for which no code can be right yet.
const NoAuthenticator = "no authenticator is enrolled for this client: whoever runs the server has to do so"

// Errors of a second factor.
var (
	ErrCannotSignIn = errors.New("an app that speaks WireGuard cannot sign in")
	ErrNoCodes      = errors.New("the client's group does not ask for codes")

	errNoSecret  = errors.New(NoAuthenticator)
	errWrongCode = errors.New("the code is wrong, or was used before")
	errTooMany   = errors.New("too many wrong codes")
)

func (c *Config) checkSignIns() error {
	for _, group := range slices.Sorted(maps.Keys(c.SignIns)) {
		s := c.SignIns[group]
		_, ok := c.Groups[group]
		switch {
		case !ok:
			return fmt.Errorf("the group %s needs a second factor, and there is none of that name", group)
		case s.Codes == (s.Provider != ""):
			return fmt.Errorf("group %s: the second factor is either codes or a provider", group)
		case s.Lasts < MinSignIn || s.Lasts > MaxSignIn:
			return fmt.Errorf("group %s: a sign-in that lasts %v is not %v to %v", group, s.Lasts, MinSignIn, MaxSignIn)
		}
	}
	return nil
}

// admits reports why a client of a group cannot be one of its wire.
func (c *Config) admits(group string, wireGuard bool) error {
	if _, asked := c.SignIns[group]; asked && wireGuard {
		return fmt.Errorf("%w, which the group %s demands: put it into another group, or have it run culvert", ErrCannotSignIn, group)
	}
	return nil
}

// factor is what is kept of a name's second factor.
type factor struct {
	Secret   []byte       `json:"secret,omitempty"` // for codes
	Used     uint64       `json:"used,omitempty"`   // period of the last code that was taken
	Guesses  totp.Guesses `json:"guesses,omitzero"`
	SignedIn time.Time    `json:"signed_in,omitzero"` // zero: not
	By       string       `json:"by,omitempty"`       // SignIn.by of then
	As       string       `json:"as,omitempty"`       // who, as the provider says
}

func (st *state) readFactor(key string, value []byte) error {
	var f factor
	if err := json.Unmarshal(value, &f); err != nil {
		return err
	}
	if !ValidName(key) || len(f.Secret) > 128 || len(st.factors) > MaxClients+MaxInvitations {
		return ErrMalformed
	}
	st.factors[key] = &f
	return nil
}

// signIn is the second factor that a client needs; false where none. The lock is held.
func (sv *Server) signIn(c *Client) (SignIn, bool) {
	s, ok := sv.config.SignIns[sv.config.group(c.Name, c.Group)]
	return s, ok
}

// clockBack is how far the clock may have been set back behind a sign-in that still counts.
const clockBack = time.Minute

// until is when a sign-in ends; the zero time where there is none that counts. The lock is held.
func (sv *Server) until(c *Client, s *SignIn, now time.Time) time.Time {
	f := sv.state.factors[c.Name]
	if f == nil || f.SignedIn.IsZero() || f.By != s.by() || f.SignedIn.After(now.Add(clockBack)) {
		return time.Time{}
	}
	if end := f.SignedIn.Add(s.Lasts); now.Before(end) {
		return end
	}
	return time.Time{}
}

// Admitted reports whether anything may pass to and from the client with a key: the file has its group, and it needs no second factor, or
// has signed in. For keys that are no client's it is true.
func (sv *Server) Admitted(key crypto.PublicKey, now time.Time) bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.client(key)
	if c == nil {
		return true
	}
	if sv.strayed(c) {
		return false
	}
	s, asked := sv.signIn(c)
	return !asked || !sv.until(c, &s, now).IsZero()
}

// strayed reports whether a client is of a group that the file does not have: what that group demanded of it is not known any more, so that
// nothing passes until the file has the group again, or says another one for the client. The lock is held.
func (sv *Server) strayed(c *Client) bool {
	group := sv.config.group(c.Name, c.Group)
	_, ok := sv.config.Groups[group]
	return group != "" && !ok
}

// Strayed reports whether the client of a name is held, since the file does not have its group.
func (sv *Server) Strayed(name string) bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.state.clients[name]
	return c != nil && sv.strayed(c)
}

// SignInOf is how far the sign-in of the client with a key has come, where there is one; false where it needs none. Of one that goes by a
// provider and has not begun it is SignInBegin.
func (sv *Server) SignInOf(key crypto.PublicKey, now time.Time) (SignInState, bool) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.client(key)
	if c == nil {
		return SignInState{}, false
	}
	s, asked := sv.signIn(c)
	if !asked {
		return SignInState{}, false
	}
	if end := sv.until(c, &s, now); !end.IsZero() {
		return SignInState{Step: SignInDone, Lasts: min(max(end.Sub(now).Truncate(time.Second), 0), MaxSignIn)}, true
	}
	if !s.Codes {
		return SignInState{Step: SignInBegin}, true
	}
	state := SignInState{Step: SignInCode}
	if f := sv.state.factors[c.Name]; f == nil || f.Secret == nil {
		state.Note = errNoSecret.Error()
	} else if wait := f.Guesses.Wait(now); wait > 0 {
		state.Note = tooMany(wait)
	}
	return state, true
}

func tooMany(wait time.Duration) string {
	return fmt.Sprintf("%v: wait for %v", errTooMany, max(wait.Round(time.Second), time.Second))
}

// Group is the group that counts of the client with a key; false where there is no such client.
func (sv *Server) Group(key crypto.PublicKey) (name, group string, ok bool) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.client(key)
	if c == nil {
		return "", "", false
	}
	return c.Name, sv.config.group(c.Name, c.Group), true
}

// keepFactor replaces what is kept of a name's second factor. The lock is held.
func (sv *Server) keepFactor(name string, f *factor) error {
	if err := sv.store.Update(func(tx Tx) error { return put(tx, factorTable, name, f) }); err != nil {
		return err
	}
	sv.state.factors[name] = f
	return nil
}

// factorOf is a copy of what is kept of a name, to be changed. The lock is held.
func (sv *Server) factorOf(name string) *factor {
	if f := sv.state.factors[name]; f != nil {
		again := *f
		return &again
	}
	return &factor{}
}

// EnrolCodes makes a new secret for the codes of a client, or of a name that is invited, and returns it as the link that apps take. A
// secret from before is good for nothing any more, nor is a sign-in by it.
func (sv *Server) EnrolCodes(name string, now time.Time) (link string, err error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c, group, known := sv.state.clients[name], "", false
	if c != nil {
		group, known = c.Group, true
	}
	for _, i := range sv.state.invitations {
		if i.Name == name && i.open(now) {
			group, known = i.Group, true
		}
	}
	if !known {
		return "", fmt.Errorf("%w: %s", ErrNoClient, name)
	}
	group = sv.config.group(name, group)
	if s, asked := sv.config.SignIns[group]; !asked || !s.Codes {
		return "", fmt.Errorf("%w: %s", ErrNoCodes, name)
	}
	secret := totp.GenerateSecret()
	if err := sv.keepFactor(name, &factor{Secret: secret}); err != nil {
		return "", err
	}
	sv.note(now, Event{Event: EventEnrolled, Client: name})
	return totp.Link(secret, "culvert "+sv.config.Tunnel, name), nil
}

// TryCode checks a code that a client has sent. With a right one it is signed in, which is in the store before it is told; so is that the
// code is used up. The error says why not, for the client's user; where guesses come too fast for it to be looked at, it is not in the
// audit log, but for the first time.
func (sv *Server) TryCode(key crypto.PublicKey, code string, now time.Time) error {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.client(key)
	if c == nil {
		return ErrNoClient
	}
	s, asked := sv.signIn(c)
	if !asked || !s.Codes {
		return ErrNoCodes
	}
	f := sv.factorOf(c.Name)
	if f.Secret == nil {
		return errNoSecret
	}
	if wait := f.Guesses.Wait(now); wait > 0 {
		return errors.New(tooMany(wait))
	}
	step, right := totp.Match(f.Secret, strings.ReplaceAll(code, " ", ""), now, f.Used)
	if !right {
		f.Guesses.Failed(now)
		if err := sv.keepFactor(c.Name, f); err != nil {
			return fmt.Errorf("the server cannot check codes")
		}
		why := errWrongCode.Error()
		if wait := f.Guesses.Wait(now); wait > 0 {
			why += "; " + tooMany(wait)
		}
		sv.note(now, Event{Event: EventRefused, Client: c.Name, Key: key, From: addrText(sv.seen[c.Name].from), Why: "sign-in: " + why})
		return errors.New(why)
	}
	f.Used, f.Guesses = step, totp.Guesses{}
	return sv.signedIn(c, &s, f, "", now)
}

// SignedIn notes that a provider has said who the user of a client is.
func (sv *Server) SignedIn(key crypto.PublicKey, provider, as string, now time.Time) error {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.client(key)
	if c == nil {
		return ErrNoClient
	}
	s, asked := sv.signIn(c)
	if !asked || s.Codes || s.Provider != provider {
		return errors.New("the server asks for another second factor now")
	}
	return sv.signedIn(c, &s, sv.factorOf(c.Name), as, now)
}

func (sv *Server) signedIn(c *Client, s *SignIn, f *factor, as string, now time.Time) error {
	f.SignedIn, f.By, f.As = now, s.by(), as
	if err := sv.keepFactor(c.Name, f); err != nil {
		return fmt.Errorf("the server cannot keep that you have signed in")
	}
	sv.note(now, Event{Event: EventSignedIn, Client: c.Name, Key: c.Key, From: addrText(sv.seen[c.Name].from), Expires: now.Add(s.Lasts), By: strings.TrimSpace(f.By + " " + as)})
	return nil
}

// RefuseSignIn notes that a client's user could not sign in.
func (sv *Server) RefuseSignIn(key crypto.PublicKey, why string, now time.Time) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if c := sv.client(key); c != nil {
		sv.note(now, Event{Event: EventRefused, Client: c.Name, Key: key, From: addrText(sv.seen[c.Name].from), Why: "sign-in: " + why})
	}
}

// SignOut ends sign-ins that do not count any more, and returns whose, also where that cannot be kept.
func (sv *Server) SignOut(now time.Time) (over []crypto.PublicKey, err error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	draft := map[string]*factor{}
	for name, f := range sv.state.factors {
		if c := sv.state.clients[name]; c != nil && !f.SignedIn.IsZero() {
			if s, asked := sv.signIn(c); !asked || sv.until(c, &s, now).IsZero() {
				again := *f
				again.SignedIn, again.By, again.As = time.Time{}, "", ""
				draft[name] = &again
			}
		}
	}
	if len(draft) == 0 {
		return nil, nil
	}
	names := slices.Sorted(maps.Keys(draft))
	err = sv.store.Update(func(tx Tx) error {
		for _, name := range names {
			if err := put(tx, factorTable, name, draft[name]); err != nil {
				return err
			}
		}
		return nil
	})
	// Whether or not it can be kept: what is read of it after a restart is found over again.
	for _, name := range names {
		c := sv.state.clients[name]
		over = append(over, c.Key)
		sv.note(now, Event{Event: EventSignedOut, Client: name, Key: c.Key, By: sv.state.factors[name].By})
		sv.state.factors[name] = draft[name]
	}
	return over, err
}

// nextSignOut is when the next sign-in is over; the zero time where there is none. The lock is held.
func (sv *Server) nextSignOut() (next time.Time) {
	for name, f := range sv.state.factors {
		c := sv.state.clients[name]
		if c == nil || f.SignedIn.IsZero() {
			continue
		}
		end := f.SignedIn // it does not count: at once
		if s, asked := sv.signIn(c); asked && f.By == s.by() {
			end = f.SignedIn.Add(s.Lasts)
		}
		if next.IsZero() || end.Before(next) {
			next = end
		}
	}
	return next
}

// SignInEnds is when the sign-in of a client ends, by which factor it is, and who its user is; asked is false where it needs none.
func (sv *Server) SignInEnds(name string, now time.Time) (end time.Time, by, as string, asked bool) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.state.clients[name]
	if c == nil {
		return time.Time{}, "", "", false
	}
	s, asked := sv.signIn(c)
	if !asked {
		return time.Time{}, "", "", false
	}
	if end = sv.until(c, &s, now); !end.IsZero() {
		as = sv.state.factors[name].As
	}
	return end, s.by(), as, true
}
