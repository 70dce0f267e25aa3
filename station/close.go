package station

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

const envelopeName = "order.cose"

// kept reads the order's envelope, which outlives the order file: who ordered, and the key records go back to.
func (s *Station) kept(id string) (wire.Order, []byte, error) {
	if !wire.ValidName(id) {
		return wire.Order{}, nil, fault.New(fault.Invalid, "order.invalid", fmt.Sprintf("order %q: not a name", id), "name it as the order's file does")
	}
	envelope, err := os.ReadFile(filepath.Join(s.orderDir(id), envelopeName))
	if errors.Is(err, os.ErrNotExist) {
		return wire.Order{}, nil, fault.New(fault.NotFound, "order.unknown", fmt.Sprintf("this station holds no order %q", id), "import its file first")
	}
	if err != nil {
		return wire.Order{}, nil, fmt.Errorf("station: %w", err)
	}
	o := &opened{envelope: envelope}
	if _, _, err := s.verifySigner(o); err != nil {
		return wire.Order{}, nil, err
	}
	if o.order.Header.ID != id {
		return wire.Order{}, nil, refused("changed", fmt.Errorf("the order kept as %q is %q", id, o.order.Header.ID))
	}
	return o.order, envelope, nil
}

// Show tells of one order.
func (s *Station) Show(id string) (Summary, error) {
	o, envelope, err := s.kept(id)
	if err != nil {
		return Summary{}, err
	}
	return s.summary(o.Header, wire.RecordHash(envelope))
}

// Exported says what an export wrote.
type Exported struct {
	Order string `json:"order"`
	File  string `json:"file"`
	From  uint32 `json:"from"` // records
	To    uint32 `json:"to"`
	More  bool   `json:"more"` // there are records behind To: a file has room for so many
}

// Export seals the records behind the one numbered after, and the job-end certificate if the order is closed, to the OEM, into the file
// path: the whole file or none. It may be done again and again: the OEM takes each record once. The run's limit on days without
// export counts from when the file is there.
func (s *Station) Export(id, path string, after uint32, now time.Time) (Exported, error) {
	e := Exported{Order: id, File: path, From: after + 1, To: after}
	o, envelope, err := s.kept(id)
	if err != nil {
		return e, err
	}
	j, err := s.openJob(id, wire.RecordHash(envelope))
	if err != nil {
		return e, err
	}
	defer j.close() //nolint:errcheck // nothing was appended
	if after >= j.seq && len(j.end) == 0 && len(j.seen) == 0 {
		return e, fault.New(fault.Conflict, "order.empty", fmt.Sprintf("order %s has %d records, asked for those behind %d", id, j.seq, after), "make a device first, or close the order")
	}
	f, err := durable.Create(path)
	if err != nil {
		return e, err
	}
	if err := j.export(f, o.Header.ReturnKey, &e); err != nil {
		f.Abort()
		return e, err
	}
	if err := f.Commit(); err != nil {
		return e, err
	}
	j.state.Exported = now.UTC()
	return e, j.writeState()
}

// exporter seals records as they come, batch by batch.
type exporter struct {
	w     *wire.RecordFileWriter
	key   []byte
	batch wire.RecordBatch
}

func (x *exporter) flush() error {
	sealed, err := wire.SealBatch(x.batch, x.key)
	if err != nil {
		return err
	}
	x.batch.Records = x.batch.Records[:0]
	return x.w.Add(sealed)
}

// export writes as many records as a file has room for.
func (j *job) export(w io.Writer, key []byte, e *Exported) error {
	if err := j.room(e); err != nil {
		return err
	}
	n := int(e.To-(e.From-1)+wire.BatchRecords-1) / wire.BatchRecords
	b := bufio.NewWriterSize(w, 1<<16)
	file, err := wire.NewRecordFileWriter(b, j.order, max(n, 1))
	if err != nil {
		return err
	}
	x := &exporter{w: file, key: key, batch: wire.RecordBatch{Order: j.order, Records: [][]byte{}}}
	seq := uint32(0)
	if err := j.spool.Each(func(envelope []byte) error {
		if seq++; seq < e.From || seq > e.To {
			return nil
		}
		x.batch.Records = append(x.batch.Records, envelope)
		if seq == e.To && !e.More {
			x.batch.JobEnd, x.batch.Inspections = j.end, j.seen
		}
		if len(x.batch.Records) < wire.BatchRecords && seq < e.To {
			return nil
		}
		return x.flush()
	}); err != nil {
		return err
	}
	if n == 0 {
		x.batch.JobEnd, x.batch.Inspections = j.end, j.seen
		if err := x.flush(); err != nil {
			return err
		}
	}
	if err := file.Close(); err != nil {
		return err
	}
	return b.Flush()
}

// room finds how far a file of records reaches.
func (j *job) room(e *Exported) error {
	const aBatch = 1 << 10 // what a batch has besides records
	seq, size, stop := uint32(0), 64<<10, false
	err := j.spool.Each(func(envelope []byte) error {
		seq++
		if stop || seq < e.From {
			return nil
		}
		if (seq-e.From)%wire.BatchRecords == 0 {
			size += aBatch
		}
		size += len(envelope) + 8
		if size > wire.MaxRecordFile || seq-e.From >= wire.MaxFileBatches*wire.BatchRecords {
			stop = true
			return nil
		}
		e.To = seq
		return nil
	})
	e.More = e.To < seq
	return err
}

// CloseOrder ends the order here: tickets left over are void, the order key and the order file are destroyed, and the job-end
// certificate says so. Closing again gives the same summary.
func (s *Station) CloseOrder(id string, now time.Time) (Summary, error) {
	order, envelope, err := s.kept(id)
	if err != nil {
		return Summary{}, err
	}
	anchor := wire.RecordHash(envelope)
	j, err := s.openJob(id, anchor)
	if err != nil {
		return Summary{}, err
	}
	if err := errors.Join(s.end(j, id, now), j.close()); err != nil {
		return Summary{}, err
	}
	return s.summary(order.Header, anchor)
}

func (s *Station) end(j *job, id string, now time.Time) error {
	path := filepath.Join(j.dir, orderName)
	if j.end == nil {
		o, err := s.load(id, now, false)
		if err != nil {
			return err
		}
		if err := errors.Join(j.settle(s, o, now), o.close()); err != nil {
			return err
		}
		root := j.tree.Root()
		payload, err := wire.EncodeJobEnd(wire.JobEnd{
			Order: id, Station: s.id[:], Records: j.seq, Made: j.made, Scrapped: j.scrapped, Last: j.last[:], Root: root[:],
			KeyDestroyed: true, Time: uint64(now.Unix()),
			Statement: "The order key's object in module " + s.mod.Info().Name + " is destroyed and this station refuses the order from now on. " +
				"The wrapped blob in the order file stays openable by the wrapping key of this OEM at this station.",
		})
		if err != nil {
			return err
		}
		if j.end, err = wire.Sign1(wire.TypeJobEnd, payload, s.record); err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(j.dir, "end"), j.end); err != nil {
			return err
		}
	}
	return durable.Remove(path)
}
