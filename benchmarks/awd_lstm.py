"""What AWD-LSTM's dropouts cost: a training step of the language model beside one of a plain `nn.LSTM` stack.

    python benchmarks/awd_lstm.py --rounds 10

Both have an embedding, `n_layers` LSTM layers of the same sizes, and a decoder with the embedding's weights; the plain
one drops nothing. Steps – forward, cross-entropy, backward, AdamW – alternate, so that whatever else the machine does
falls on both alike. Prints the median step of each, and the median over rounds of how fast the one is in parts of the
other (above 1: faster).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from warmstart.text import AWD_LSTM, get_language_model


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    sizes = {"emb_sz": args.emb_sz, "n_hid": args.n_hid, "n_layers": args.n_layers}
    models = {"plain": PlainLM(args.vocab_sz, **sizes), "awd_lstm": get_language_model(AWD_LSTM, args.vocab_sz, sizes)}
    steps = {name: training_step(model.to(device)) for name, model in models.items()}
    tokens = torch.randint(args.vocab_sz, (args.bs, args.seq_len + 1), device=device)
    for step in steps.values():
        timed(step, tokens, args.n)  # the first ones choose kernels
    report([{name: timed(step, tokens, args.n) for name, step in steps.items()} for _ in range(args.rounds)])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--n", type=int, default=1, help="steps in a round, of each")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bs", type=int, default=64)
    parser.add_argument("--seq_len", type=int, default=72)
    parser.add_argument("--vocab_sz", type=int, default=10_000)
    parser.add_argument("--emb_sz", type=int, default=400)
    parser.add_argument("--n_hid", type=int, default=1152)
    parser.add_argument("--n_layers", type=int, default=3)
    return parser.parse_args()


class PlainLM(nn.Module):
    """The same sizes from PyTorch's own layers, without dropout."""

    def __init__(self, vocab_sz: int, emb_sz: int, n_hid: int, n_layers: int):
        super().__init__()
        sizes = [emb_sz, *[n_hid] * (n_layers - 1), emb_sz]
        self.embedding, self.decoder = nn.Embedding(vocab_sz, emb_sz), nn.Linear(emb_sz, vocab_sz)
        self.rnns = nn.ModuleList(nn.LSTM(sizes[i], sizes[i + 1], batch_first=True) for i in range(n_layers))
        self.decoder.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        output = self.embedding(x)
        for rnn in self.rnns:
            output, _ = rnn(output)
        return self.decoder(output)


def training_step(model: nn.Module) -> Callable[[Tensor], None]:
    opt = torch.optim.AdamW(model.parameters(), 1e-4)
    model.train()

    def step(tokens: Tensor) -> None:
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        opt.step()
        opt.zero_grad()

    return step


def timed(step: Callable[[Tensor], None], tokens: Tensor, n: int) -> float:
    """Seconds for a step: the process's own on a CPU, the clock's on an accelerator."""
    on_cpu = tokens.device.type == "cpu"
    now = time.process_time if on_cpu else time.perf_counter
    begin = now()
    for _ in range(n):
        step(tokens)
    if not on_cpu:
        torch.accelerator.synchronize()
    return (now() - begin) / n


def report(rounds: list[dict[str, float]]) -> None:
    print(f"median of {len(rounds)} rounds")
    for name in rounds[0]:
        seconds = statistics.median(times[name] for times in rounds)
        speed = statistics.median(times["plain"] / times[name] for times in rounds)
        print(f"  {name:<10}{seconds * 1e3:10.1f} ms a step{speed:8.3f} × plain")


if __name__ == "__main__":
    main()
