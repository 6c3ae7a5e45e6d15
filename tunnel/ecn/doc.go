// Package ecn carries congestion marks (ECN, RFC 3168) through the tunnel as RFC 6040 says: the outer header starts with the
// inner packet's ECN field, and a mark set on the way is merged into the inner packet at the far end. It holds pure
// functions without allocation.
package ecn
