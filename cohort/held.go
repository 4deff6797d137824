package cohort

import "context"

// heldHere is the error of a try that finds the key held or waited for in this process.
func (m *Manager) heldHere(ctx context.Context, key string) error {
	var c Claim
	if err := m.claims.ask(ctx, func(cs *claims) { c = cs.info(key) }); err != nil || c.State != ClaimHeld {
		return ErrHeld // also if this process waits at the engine, for a holder that only the engine knows
	}
	held := &HeldError{Key: key, Holder: Contender{Since: c.Since, Epoch: c.Token.Epoch, Own: true}}
	if r, ok := m.engine.(Reporter); ok {
		held.Holder.Process = r.Report().Process
	}
	return held
}

// inspectors is how many keys a Snapshot asks the engine about at a time.
const inspectors = 8

// withQueues adds the engine's queues to the keys that wait there.
func (m *Manager) withQueues(ctx context.Context, infos []KeyInfo) {
	engine, ok := m.engine.(Inspector)
	if !ok {
		return
	}
	var waiting []*KeyInfo
	for i := range infos {
		if infos[i].Claim.State == ClaimWaiting {
			waiting = append(waiting, &infos[i])
		}
	}
	ctx, cancel := context.WithTimeout(ctx, m.engineTimeout)
	defer cancel()
	next, done := make(chan *KeyInfo), make(chan struct{})
	workers := min(inspectors, len(waiting))
	for range workers {
		go func() {
			for k := range next {
				k.Engine, k.EngineErr = engine.Inspect(ctx, k.Key)
			}
			done <- struct{}{}
		}()
	}
	for _, k := range waiting {
		next <- k
	}
	close(next)
	for range workers {
		<-done
	}
}
