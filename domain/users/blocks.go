package users

import "strings"

// blocks store many short texts in a few large pieces, one text after the other. A text that is allocated by itself
// costs its rounding to a size class, a header of 16 bytes wherever it is kept, and work in each garbage collection. A
// block has no pointers, so the collector handles it as one object.
//
// A text never moves and is never overwritten. So a string that was handed out stays valid, and keeps its block alive.
type blocks struct {
	texts []string         // "" where a block was given back
	open  *strings.Builder // the block that is being filled
	last  int              // is its number
	spare []int            // numbers that were given back
}

// textRef is the position of a text: the number of a block, and 14 bits of a position in it. 0 is never a position.
type textRef uint32

// blockSize is what is allocated at once; it is one of the size classes of the allocator. There can be 2^18 blocks, 4
// GiB.
const (
	blockBits = 14
	blockSize = 1 << blockBits
	maxBlocks = 1 << (32 - blockBits)
)

// largeText is the size above which a text gets a block of its own. So at most a quarter of the open block is wasted.
const largeText = blockSize / 4

func (r textRef) block() int { return int(r >> blockBits) }
func (r textRef) place() int { return int(r & (blockSize - 1)) }

// put writes head and body as one text.
func (b *blocks) put(head, body []byte) textRef {
	n := len(head) + len(body)
	if n > largeText {
		large := &strings.Builder{}
		large.Grow(n)
		block := b.number()
		return b.write(large, block, head, body)
	}
	if b.open == nil || b.open.Len()+n > blockSize {
		b.open, b.last = &strings.Builder{}, b.number()
		b.open.Grow(blockSize) // never grows again, so what was handed out shares its memory
	}
	return b.write(b.open, b.last, head, body)
}

func (b *blocks) write(into *strings.Builder, block int, head, body []byte) textRef {
	ref := textRef(block<<blockBits | into.Len())
	into.Write(head)
	into.Write(body)
	b.texts[block] = into.String()
	return ref
}

// number returns the number of a block that is free to be written.
func (b *blocks) number() int {
	if len(b.texts) == 0 {
		b.texts = append(b.texts, "") // so that nothing is at 0
	}
	if n := len(b.spare); n > 0 {
		block := b.spare[n-1]
		b.spare = b.spare[:n-1]
		return block
	}
	if len(b.texts) == maxBlocks {
		panic("domain: the users of one partition take more than 4 GiB of memory: whisper needs more partitions")
	}
	b.texts = append(b.texts, "")
	return len(b.texts) - 1
}

// from is the text and everything behind it in its block.
func (b *blocks) from(ref textRef) string { return b.texts[ref.block()][ref.place():] }

// giveBack releases a block that is not the open one.
func (b *blocks) giveBack(block int) {
	b.texts[block] = ""
	b.spare = append(b.spare, block)
}
