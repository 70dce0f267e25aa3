package machine

import (
	"context"
	"strings"

	"github.com/hallmark-iot/hallmark/wire"
)

// Configure implements agent.Configurable. A program that does not answer yet is told when it does; one that was started anew, or is of another release, is told
// again.
func (p *Programs) Configure(all []wire.ConfigEntry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.values, p.known = all, true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, x := range p.list {
		p.tell(ctx, x)
	}
	return nil
}

// tell tells a program the parameters that it names, if it has not answered to just these. p.mu is held.
func (p *Programs) tell(ctx context.Context, x *program) {
	if !p.known || x.proc == nil || x.what.Capabilities == nil || len(x.what.Capabilities.Parameters) == 0 {
		return
	}
	values, err := x.schema.Values(x.what.Capabilities.Parameters, p.values)
	if err != nil || x.told != nil && x.told.proc == x.proc && x.told.values == string(values) {
		return
	}
	said, err := x.proc.Ask(ctx, "parameters "+string(values))
	if err != nil { // it is told again when it is well
		x.told = nil
		return
	}
	word, text, _ := strings.Cut(said, " ")
	if word != "ok" && word != "fail" {
		text = "it does not know the question"
	}
	text = strings.ToValidUTF8(text[:min(len(text), wire.MaxTold)], "")
	x.told = &told{x.proc, string(values), wire.ProgramTold{Taken: word == "ok", Answered: true, Text: text}}
}

// Told implements agent.Configurable.
func (p *Programs) Told() (all []wire.ProgramTold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.list {
		if x.what.Capabilities == nil || len(x.what.Capabilities.Parameters) == 0 {
			continue
		}
		var a wire.ProgramTold
		if x.told != nil && x.told.proc == x.proc {
			a = x.told.answer
		}
		a.Program, a.Parameters = x.name, x.what.Capabilities.Parameters
		all = append(all, a)
	}
	return all
}
