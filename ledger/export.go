package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// tilePath is where a tile is served: tile/<L>/<N>, with .p/<W> while it is not full; level −1 are the entry bundles.
func tilePath(level int, index uint64, width int) string {
	name := "entries"
	if level >= 0 {
		name = fmt.Sprint(level)
	}
	n := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		n = fmt.Sprintf("x%03d/%s", index%1000, n)
	}
	p := "tile/" + name + "/" + n
	if width < tileWidth {
		p += fmt.Sprintf(".p/%d", width)
	}
	return p
}

// export writes every file that a tree of size now has and the tree of size from had not: full tiles for good, the right edge
// as partial tiles.
func (p *Publisher) export(ctx context.Context, to outlet, from, now uint64) error {
	if from == now {
		return nil
	}
	tiles := p.reader.tiles(ctx, p.cfg.Log)
	for level := 0; now>>(tileHeight*level) > 0; level++ {
		a, b := from>>(tileHeight*level), now>>(tileHeight*level)
		if a == b {
			continue
		}
		for index := a / tileWidth; index*tileWidth < b; index++ {
			width := int(min(tileWidth, b-index*tileWidth))
			data, err := tiles(level, index)
			if err != nil {
				return err
			}
			if len(data) < width*hashSize {
				return fmt.Errorf("tile %d/%d is too short for size %d", level, index, now)
			}
			if err := to.Put(ctx, tilePath(level, index, width), data[:width*hashSize]); err != nil {
				return err
			}
		}
	}
	for index := from / tileWidth; index*tileWidth < now; index++ {
		width := min(tileWidth, now-index*tileWidth)
		entries, err := p.cfg.Store.Entries(ctx, p.cfg.Log, index*tileWidth, index*tileWidth+width)
		if err != nil {
			return err
		}
		if uint64(len(entries)) != width {
			return fmt.Errorf("%s: %d entries from %d on, want %d", p.cfg.Log, len(entries), index*tileWidth, width)
		}
		var b strings.Builder
		for _, e := range entries {
			b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(e))))
			b.Write(e)
		}
		if err := to.Put(ctx, tilePath(-1, index, int(width)), []byte(b.String())); err != nil {
			return err
		}
	}
	return nil
}

// show makes note the checkpoint of a place, unless a newer one is there: who is slower never takes back what another node has shown.
func (p *Publisher) show(ctx context.Context, at outlet, s State, note []byte) error {
	var refused []byte
	for first := true; ; first = false {
		old, err := at.Get(ctx, "checkpoint")
		if err != nil {
			return err
		}
		if !first && bytes.Equal(old, refused) {
			// Nobody was faster: trying on would only ask the same again, without a pause.
			return errors.New("export: the checkpoint cannot be replaced though nobody else has: the place it is in must allow conditional writes (If-Match)")
		}
		if old != nil {
			shown, err := p.parse(at, old)
			if err != nil || shown.Size > s.Size {
				return err
			}
		}
		if done, err := at.Swap(ctx, "checkpoint", old, note); err != nil || done {
			return err
		}
		refused = old
	}
}

// dropPartial removes the partial files of tiles that are full since: a log published entry by entry would otherwise keep 255
// of each. Who still reads by an older checkpoint takes the full one (c2sp.org/tlog-tiles, "partial tiles").
func (p *Publisher) dropPartial(ctx context.Context, to outlet, from, now uint64) error {
	drop := func(level int, a, b uint64) error {
		for index := a / tileWidth; index < b/tileWidth; index++ {
			if err := to.Drop(ctx, tilePath(level, index, tileWidth)+".p"); err != nil {
				return err
			}
		}
		return nil
	}
	for level := 0; now>>(tileHeight*level) > 0; level++ {
		if err := drop(level, from>>(tileHeight*level), now>>(tileHeight*level)); err != nil {
			return err
		}
	}
	return drop(-1, from, now)
}

// Mend writes each exported file again that is lost or changed, from the database, and says how many were; for a publisher that does
// not run. The checkpoint it compares with is the published one.
func (p *Publisher) Mend(ctx context.Context) (written int, err error) {
	prev, err := p.cfg.Store.Published(ctx, p.cfg.Log)
	if err != nil {
		return 0, err
	}
	for _, o := range p.outlets {
		m := &mending{Exporter: o.Exporter}
		if err := p.export(ctx, outlet{Exporter: m}, 0, prev.Size); err != nil {
			return written, err
		}
		note, err := o.Get(ctx, "checkpoint")
		if err != nil {
			return written, err
		}
		if shown, err := p.own(note); err != nil || shown.Size < prev.Size {
			if _, err := o.Swap(ctx, "checkpoint", note, prev.Note); err != nil {
				return written, err
			}
			m.written++
		}
		written += m.written
	}
	return written, nil
}

// mending puts only what is not there as it should be.
type mending struct {
	Exporter
	written int
}

func (m *mending) Put(ctx context.Context, path string, data []byte) error {
	have, err := m.Get(ctx, path)
	if err != nil || have != nil && bytes.Equal(have, data) {
		return err
	}
	m.written++
	return m.Exporter.Put(ctx, path, data)
}
