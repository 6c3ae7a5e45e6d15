package main

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"culvert/config"
	"culvert/crypto"
	"culvert/server"
	"culvert/tunnel"
)

// role is what a tunnel is to others on the native wire besides an end: a server that clients join, or the client of one. What comes in
// from peers is taken from the engine's control loop, which must not wait, and worked off by one goroutine.
type role struct {
	changing sync.Mutex       // held while the configuration in force changes: by a reload, and by what comes in
	server   *served          // nil where nobody can join
	order    serverOrder      // of the servers this is a client of
	pulled   *server.Document // what is set up of what one of them says
	pulledBy crypto.PublicKey // which
	signIn   signInView       // what they ask of the user

	workers sync.WaitGroup // that work mail off, and sign-ins at providers; only they begin further ones
	// provider is the way to who says who users are; another one in tests.
	provider func(*config.OIDC) http.RoundTripper

	mail    *mailbox
	refresh chan struct{} // the peers of the server have changed, other than by mail
}

// pushed is called by the engine.
func (r *role) pushed(from crypto.PublicKey, subject string, document []byte) {
	switch serves := r.server != nil; {
	case !serves && subject == server.SubjectConfig && len(document) <= server.MaxDocument:
	case !serves && subject == server.SubjectSignIn && len(document) <= server.MaxSignInState:
	case serves && subject == server.SubjectEnrol && len(document) <= server.MaxEnrolRequest:
	case serves && subject == server.SubjectSignInAnswer && len(document) <= server.MaxSignInAnswer:
	case serves && subject == server.SubjectPull:
		document = nil
	default:
		return
	}
	r.mail.post(roleMail{peer: from, subject: subject, document: document})
}

// greeted is called by the engine.
func (r *role) greeted(peer crypto.PublicKey, from netip.AddrPort) {
	r.mail.post(roleMail{peer: peer, from: from})
}

// openRole prepares for what the tunnel is to others, before its engine starts.
func (t *liveTunnel) openRole(s surroundings) (err error) {
	t.role.provider = transportTo
	t.role.mail, t.role.refresh = newMailbox(), make(chan struct{}, 1)
	if t.conf.Server == nil {
		return nil
	}
	t.role.server, err = openServed(s, &t.conf, t.log)
	return placed(serverPosition(&t.conf), err)
}

// configureRole hands a changed configuration to the server.
func (t *liveTunnel) configureRole(conf *config.Tunnel) error {
	if t.role.server == nil || conf.Server == nil {
		return nil
	}
	return t.role.server.server.Configure(serverConfig(conf), time.Now())
}

// wholeOf is a configuration with what clients and servers add to it. The tunnel's changing is locked, or it is not up yet.
func (t *liveTunnel) wholeOf(conf config.Tunnel) wholeTunnel { return t.wholeIn(t.file, conf) }

// wholeIn is wholeOf for the tunnel of a file.
func (t *liveTunnel) wholeIn(file *config.File, conf config.Tunnel) wholeTunnel {
	whole := wholeTunnel{Tunnel: conf}
	if t.role.server != nil {
		whole = t.role.server.with(conf, time.Now())
	}
	whole.Tunnel = t.withPulled(whole.Tunnel)
	file.CompleteMark(&whole.Tunnel)
	return whole
}

// startRole begins to work off what comes in, until the tunnel is stopped.
func (t *liveTunnel) startRole() {
	ctx, cancel := context.WithCancel(context.Background())
	t.undo.add("end what clients or a server ask for", func() error {
		cancel()
		t.role.workers.Wait()
		return nil
	})
	t.role.order.set(serversOf(&t.conf), time.Now())
	t.pull()
	t.role.workers.Go(func() { t.work(ctx) })
}

func (t *liveTunnel) work(ctx context.Context) {
	looked := time.Now() // for what is due
	for {
		var next time.Time
		if t.role.server != nil {
			next = t.nextDue()
		} else {
			next, looked = t.askServers(time.Now()), time.Now()
		}
		var due <-chan time.Time
		var timer *time.Timer
		if !next.IsZero() {
			wait := min(time.Until(next), lookEvery-time.Since(looked))
			timer = time.NewTimer(max(wait, soonestLook-time.Since(looked), 0))
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-t.role.mail.ready:
			t.takeAll(ctx, t.role.mail.take())
		case <-t.role.refresh:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
		// Whatever has woken it: what comes in all the time is not to keep anything from ending.
		ago := time.Since(looked)
		if t.role.server != nil && !next.IsZero() && ago >= soonestLook && (ago >= lookEvery || !time.Now().Before(next)) {
			looked = time.Now()
			t.expire(ctx)
		}
	}
}

const (
	// soonestLook is how soon after the last time it is looked again for what is due.
	soonestLook = 100 * time.Millisecond
	// lookEvery is how long it takes at most until a clock that was set is heeded.
	lookEvery = time.Minute
	// applyAgain is how long what could not be applied waits.
	applyAgain = 5 * time.Second
)

// nextDue is when something of the clients is due next, the zero time for never.
func (t *liveTunnel) nextDue() time.Time {
	next := t.role.server.server.Next()
	t.role.changing.Lock()
	defer t.role.changing.Unlock()
	if again := t.role.server.again; !again.IsZero() && (next.IsZero() || again.Before(next)) {
		next = again
	}
	return next
}

// takeAll works off what has come in.
func (t *liveTunnel) takeAll(ctx context.Context, mail []roleMail) {
	if t.role.server != nil {
		t.serve(ctx, mail)
		return
	}
	for i := range mail {
		switch mail[i].subject {
		case server.SubjectConfig:
			t.pushedTo(ctx, &mail[i])
		case server.SubjectSignIn:
			t.signInTold(&mail[i])
		}
	}
}

// apply makes what has changed of the whole configuration so. The tunnel's changing is locked.
func (t *liveTunnel) apply(ctx context.Context) error { return t.applyWhole(ctx, t.wholeOf(t.conf)) }

// applyClients makes what has changed of the clients so; where that fails it is tried again. The tunnel's changing is locked.
func (t *liveTunnel) applyClients(ctx context.Context) error {
	s := t.role.server
	s.again = time.Time{}
	err := t.dropGone()
	if err == nil {
		err = t.apply(ctx)
	}
	if err != nil {
		s.again = time.Now().Add(applyAgain)
	}
	return err
}

// dropGone takes peers away that are clients, or ends of invitations, no more: by itself, as nothing else that fails is to bring them back.
func (t *liveTunnel) dropGone() error {
	here := make(map[crypto.PublicKey]bool)
	for i := range t.conf.Peers {
		here[t.conf.Peers[i].PublicKey] = true
	}
	for _, p := range t.role.server.server.Peers(time.Now()) {
		here[p.Key] = true
	}
	var change tunnel.Change
	rest := make([]config.Peer, 0, len(t.whole.Peers))
	for _, p := range t.whole.Peers {
		if here[p.PublicKey] {
			rest = append(rest, p)
		} else {
			change.Peers = append(change.Peers, tunnel.PeerChange{PublicKey: p.PublicKey, Remove: true})
		}
	}
	if len(change.Peers) == 0 {
		return nil
	}
	if err := t.engine.Configure(change); err != nil {
		return err
	}
	t.linkMu.Lock()
	t.whole.Peers = rest
	t.linkMu.Unlock()
	return nil
}

// applyWhole makes another whole configuration the one in force, or stays with the one that is.
func (t *liveTunnel) applyWhole(ctx context.Context, to wholeTunnel) error {
	before := t.whole
	if err := t.change(ctx, to, before); err != nil {
		if back := t.change(context.WithoutCancel(ctx), before, to); back != nil {
			t.log.Error("cannot go back to the configuration before", "error", back)
		}
		return err
	}
	return nil
}
