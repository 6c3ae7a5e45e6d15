package device

// Largest returns the size in bytes of the largest packet that Next hands out, which is the first. It must be asked before
// the first call of Next.
func (s *Segments) Largest() int { return s.headerLen + min(s.size, s.end-s.next) }
