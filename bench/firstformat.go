package main

import "encoding/json"

// firstFormat is what the trials of format 1 have that is elsewhere now: a cell of its own for each number of flows, and floods
// of small datagrams at one rate.
type firstFormat struct {
	Trials []struct {
		TCP1       *TCP      `json:"tcp_1"`
		TCP4       *TCP      `json:"tcp_4"`
		TCPReverse *TCP      `json:"tcp_reverse"`
		UDP64      *firstUDP `json:"udp_64"`
		UDP200     *firstUDP `json:"udp_200"`
	} `json:"trials"`
}

// firstUDP is a flood of datagrams of one size.
type firstUDP struct {
	Size int `json:"size"`
	UDPRun
}

// addFirstFormat takes the cells of a file of format 1 into results read from it.
func (r *Results) addFirstFormat(text []byte) error {
	var old firstFormat
	if err := json.Unmarshal(text, &old); err != nil {
		return err
	}
	for i, t := range old.Trials {
		into := &r.Trials[i]
		addTCP := func(m *TCP, flows int, w way) {
			if m != nil {
				m.Flows, m.Way = flows, w
				into.TCP = append(into.TCP, *m)
			}
		}
		addTCP(t.TCP1, 1, forward)
		addTCP(t.TCP4, 4, forward)
		addTCP(t.TCPReverse, 1, reverse)
		for _, m := range []*firstUDP{t.UDP64, t.UDP200} {
			if m != nil {
				into.UDP = append(into.UDP, UDP{Size: m.Size, Flood: &m.UDPRun})
			}
		}
	}
	r.Format = resultsFormat
	return nil
}
