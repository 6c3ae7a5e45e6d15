package main

import (
	"errors"
	"math"
	"slices"
)

const (
	// lossAllowed is the share of datagrams that may be lost of an offer that counts as one without loss.
	lossAllowed = 0.005
	// lossDoubtful is the share up to which an offer is made once more: it may have been something else on the machine. Before there
	// are two rates to search between lossDoubtfulFirst is, as a mistake would have no bounds then.
	lossDoubtful      = 0.05
	lossDoubtfulFirst = 0.5
	// searchExactness is the ratio of the two rates between which the one sought is when the search ends.
	searchExactness = 1.05
	// searchStart, searchLeast and searchMost are rates, in datagrams per second. The search begins at the first unless something
	// is known, and goes no further than the others.
	searchStart = 32_000
	searchLeast = 500
	searchMost  = 8_000_000
	// offerKept is the share of a rate a sender has to keep, or it was the limit.
	offerKept = 0.95
	// overloadFactor is how many times the rate without loss a tunnel is offered to see what it does then.
	overloadFactor = 2
)

// rate returns what was offered per second.
func (m *UDPRun) rate() float64 { return float64(m.Sent) / m.SendSeconds }

// reached returns the rate asked for where the sender kept it, and what it was otherwise.
func (m *UDPRun) reached() float64 {
	if m.short() {
		return m.rate()
	}
	return float64(m.Asked)
}

// delivered returns what came per second. What was still queued when the sender ended took its time to come.
func (m *UDPRun) delivered() float64 {
	return float64(m.Received) / max(m.SendSeconds, m.RecvSeconds)
}

// lost returns the share the tunnel lost: what the receiver had no room for had come.
func (m *UDPRun) lost() float64 {
	return 1 - float64(m.Received+m.SocketDrops)/float64(m.Sent)
}

// short reports whether the sender did not keep the rate.
func (m *UDPRun) short() bool { return m.Asked > 0 && m.rate() < offerKept*float64(m.Asked) }

// search finds the fastest rate without loss: it doubles, or halves where the start is too much already, until the rate is between
// two, and then takes the middle of the logarithms. start is in datagrams per second; offer makes an offer of a rate.
func (u *UDP) search(start float64, offer func(rate int) (*UDPRun, error)) error {
	var good, bad float64 // rates; 0 where there is none yet
	for rate := start; ; {
		doubtful := lossDoubtful
		if good == 0 || bad == 0 {
			doubtful = lossDoubtfulFirst
		}
		run, err := u.offerTwice(int(math.Round(rate)), doubtful, offer)
		if err != nil {
			return err
		}
		asked, fits := rate, run.lost() <= lossAllowed
		if run.short() && (fits || run.rate() > good) {
			rate = run.rate()
		}
		switch {
		case fits && rate > good:
			good, u.LossFree = rate, run
		case !fits && (bad == 0 || rate < bad):
			bad, u.Lossy = rate, run
		default:
			return nil // the sender can no more, or does not come to the rates between
		}
		switch {
		case bad == 0:
			rate = asked * 2
		case good == 0:
			rate = bad / 2
		case bad <= good*searchExactness:
			return nil
		default:
			rate = math.Sqrt(good * bad)
		}
		if rate < searchLeast || rate > searchMost {
			return nil
		}
	}
}

// offerTwice makes an offer, and if it lost more than it may, but no more than is doubtful, or the sender did not keep the rate, once
// more. The better counts: the one without loss, or of two such ones the faster.
func (u *UDP) offerTwice(rate int, doubtful float64, offer func(rate int) (*UDPRun, error)) (best *UDPRun, err error) {
	for range 2 {
		run, err := offer(rate)
		if err != nil {
			return nil, err
		}
		if run.Sent == 0 || run.SendSeconds <= 0 {
			return nil, errors.New("nothing was sent")
		}
		u.Search = append(u.Search, *run)
		fits := run.lost() <= lossAllowed
		switch {
		case best == nil, fits && best.lost() > lossAllowed, fits && run.rate() > best.rate(), !fits && run.lost() < best.lost():
			best = run
		}
		if fits && !run.short() || best.lost() > doubtful {
			break
		}
	}
	return best, nil
}

// nextStart returns where to begin the next search: at what another size of datagrams found, as what a packet costs hardly depends on
// its size.
func nextStart(found []UDP) float64 {
	for _, u := range slices.Backward(found) {
		if u.LossFree != nil {
			return u.LossFree.rate()
		}
	}
	return searchStart
}
