"""How near two pictures are, and two sets of pictures: feature networks, LPIPS, Fréchet distance, PSNR and SSIM."""
